from stage2_training.evaluation import AP_NAMES, format_scores, score_table


def test_scores_are_percent_under_their_names():
    scores = dict(zip(AP_NAMES, (0.0836, 0.2093, 0.05, 0.0, 1.0, -1.0), strict=True))
    names, values = format_scores(scores).splitlines()
    assert names.split() == ["AP", "AP50", "AP75", "AP_S", "AP_M", "AP_L"]
    assert values.split() == ["8.4", "20.9", "5.0", "0.0", "100.0", "-"]
    assert len(names) == len(values)


def test_the_table_is_markdown_in_percent():
    scores = {"imagenet": dict.fromkeys(AP_NAMES, 0.125), "sp": {**dict.fromkeys(AP_NAMES, 0.5), "AP_S": -1.0}}
    header, rule, first, second = score_table(scores, "init").splitlines()
    assert header == "| init | AP | AP50 | AP75 | AP_S | AP_M | AP_L |"
    assert rule == "| --- |" + " ---: |" * 6
    assert first == "| imagenet |" + " 12.5 |" * 6
    assert second == "| sp | 50.0 | 50.0 | 50.0 | - | 50.0 | 50.0 |"
