"""The numbers as printed, and the target of each row."""

import pytest

from pipelines.experiments.paper_tables import DATASETS, INITS, SCORES, SP, TABLES, Table
from pipelines.experiments.scales import ClassAgnostic, FineTuning, Pretraining


@pytest.mark.parametrize("table", TABLES.values(), ids=lambda table: f"table {table.number}")
def test_every_row_fits_its_heading_and_no_two_are_alike(table: Table) -> None:
    for row in table.rows:
        assert len(row.names) == len(table.columns)
        assert len(row.paper) == len(table.scores)
        assert all(number is None or 0 <= number < 100 for number in row.paper)
    assert len({row.names for row in table.rows}) == len(table.rows)
    targets = [row.target for row in table.rows if row.target]
    assert len(set(targets)) == len(targets)


def test_the_tables_have_the_papers_size() -> None:
    assert {number: len(table.rows) for number, table in TABLES.items()} == {
        **{1: 10, 2: 14, 3: 20, 4: 2, 5: 4},
        **{6: 4, 7: 6},
    }


@pytest.mark.parametrize("table", TABLES.values(), ids=lambda table: f"table {table.number}")
def test_looser_overlaps_score_higher(table: Table) -> None:
    """A digit mistyped would show; but for Table 1's SwAV nothing printed is out of order."""
    for row in table.rows:
        scores = dict(zip((name.removeprefix("box_") for name in table.scores), row.paper, strict=True))
        if len(scores) > 1:
            ap, ap50, ap75 = scores["AP"], scores["AP50"], scores["AP75"]
            assert ap is not None
            assert ap50 is not None
            assert ap <= ap50
            assert ap75 is None or ap75 < ap50 or ap50 == 0


def test_one_number_stands_in_three_tables() -> None:
    """The method on COCO 10 %, and the same without prompts."""
    found = {(number, row.target): row.paper[0] for number, table in TABLES.items() for row in table.rows if row.target}
    method = FineTuning("knet", "coco10", SP)
    plain = FineTuning("knet", "coco10", Pretraining(prompts=False))
    assert [found[number, method] for number in (1, 4, 5, 7)] == [23.5] * 4
    assert [found[number, plain] for number in (5, 7)] == [21.7] * 2


def test_table_6_is_of_boxes_and_before_fine_tuning() -> None:
    assert TABLES[6].scores == ("box_AP", "box_AP50", "box_AP75")
    assert [row.target for row in TABLES[6].rows] == [None, None, None, ClassAgnostic(SP, "coco10")]
    assert all(TABLES[number].scores == SCORES for number in range(1, 6))


def test_names_are_those_of_the_targets() -> None:
    for number in (1, 2, 3):
        for row in TABLES[number].rows:
            assert isinstance(row.target, FineTuning)
            assert row.names[0] == DATASETS[row.target.dataset]
            assert row.names[-1] == (INITS[row.target.init] if isinstance(row.target.init, str) else "SP")
            assert row.target.pretraining in (None, Pretraining(row.target.model))
