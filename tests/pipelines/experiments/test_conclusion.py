"""What is said of two ways of training follows from their scores by one rule."""

import pytest

from pipelines.experiments.conclusion import conclude, verdict

NAMES = ("knet, Saliency Prompt", "ImageNet weights")


@pytest.mark.parametrize(
    ("differences", "expected"),
    [
        ([2.0, 6.3, 4.0], 1),
        ([-2.0, -6.3, -4.0], -1),
        ([2.0, 6.3, -0.1], 0),  # one seed has another sign
        ([0.1, 0.1, 9.0], 0),  # the mean is 3.1, the deviation 5.1
        ([0.0, 1.0], 0),
        ([0.0, 0.0], 0),
        ([1.0, 1.0], 1),
    ],
)
def test_a_difference_is_clear_if_all_seeds_agree_and_it_exceeds_their_spread(
    differences: list[float], expected: int
) -> None:
    assert verdict(differences) == expected
    assert verdict([-difference for difference in differences]) == -expected


def test_the_sentence_says_where_how_much_and_how_far_seeds_differ() -> None:
    ours = {10: [0.10, 0.14], 20: [0.20, 0.22], 40: [0.30, 0.30], 60: [0.1, 0.2]}
    theirs = {10: [0.08, 0.08], 20: [0.19, 0.20], 40: [0.29, 0.31], 60: [0.2, 0.3]}
    assert conclude(ours, theirs, NAMES) == (
        "knet, Saliency Prompt against ImageNet weights: more AP with 10 (+4.0, by seed +2.0 to +6.0) and "
        "20 (+1.5, by seed +1.0 to +2.0); less AP with 60 (-10.0, by seed -10.0 to -10.0); no clear difference with "
        "40 (+0.0, by seed -1.0 to +1.0) labelled images."
    )


def test_seeds_are_paired() -> None:
    """Each seed's images are its own: a hard draw is hard for both."""
    ours, theirs = {10: [0.05, 0.25, 0.15]}, {10: [0.03, 0.22, 0.13]}
    assert "more AP with 10 (+2.3, by seed +2.0 to +3.0)" in conclude(ours, theirs, NAMES)
    assert "no clear difference with 10" in conclude({10: [0.25, 0.05, 0.15]}, theirs, NAMES)


def test_of_one_seed_nothing_is_claimed() -> None:
    assert conclude({10: [0.1], 60: [0.2]}, {10: [0.05], 60: [0.3]}, NAMES) == (
        "knet, Saliency Prompt against ImageNet weights: +5.0 AP with 10, -10.0 AP with 60 labelled images; of one "
        "seed the spread is not known."
    )
