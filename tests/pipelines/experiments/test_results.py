import statistics

import pytest

from pipelines.experiments.paper import TABLES
from pipelines.experiments.results import beside, mean_and_spread, our_cells, paper_cells


@pytest.mark.parametrize(
    ("values", "cell"),
    [
        ([], "-"),
        ([0.0894], "8.9"),
        ([0.0], "0.0"),
        ([-1.0, -1.0], "-"),
        ([0.08, 0.10], f"9.0 ± {100 * statistics.stdev([0.08, 0.10]):.1f}"),
        ([0.1, 0.2, 0.3], "20.0 ± 10.0"),
        ([0.345, 0.345, 0.345], "34.5 ± 0.0"),
    ],
)
def test_a_cell_is_mean_and_spread_in_percent(values: list[float], cell: str) -> None:
    assert mean_and_spread(values) == cell


def test_a_row_has_a_cell_per_score_of_its_table() -> None:
    assert our_cells(TABLES[6], [{"box_AP": 0.03, "box_AP50": 0.08, "box_AP75": -1.0, "AP": 0.9}]) == [
        "3.0",
        "8.0",
        "-",
    ]
    assert our_cells(TABLES[6], []) == ["-"] * 3


def test_the_papers_number_stands_beside_ours() -> None:
    assert paper_cells((30.0, None)) == ["30.0", "-"]
    ours, printed = ["K-Net", "SP", "8.9 ± 0.4", "-"], ["K-Net", "SP", "30.0", "-"]
    assert beside(ours, printed, names=2) == ["K-Net", "SP", "8.9 ± 0.4 (30.0)", "- (-)"]
