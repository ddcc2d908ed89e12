from pipelines.duration import duration


def test_durations_are_for_a_person():
    assert [duration(s) for s in (0, 99.4, 100, 5_939, 6_000, 7_260)] == [
        *("0 s", "99 s", "2 min", "99 min", "1 h 40 min", "2 h 01 min")
    ]
