"""The numbers as printed, and what each row is about."""

from dataclasses import replace

import pytest

from pipelines.experiments.notes import NOTES
from pipelines.experiments.paper import DATASETS, FIGURES, INITS, SCORES, TABLES, Experiment, Row

METHOD = Row("knet", "coco10", "sp", "saliency")
PLAIN = Row("knet", "coco10", "pseudo", "saliency")
AGAINST_MASK_RCNN = (("mask_rcnn", "imagenet"), ("knet", "imagenet"), ("knet", "sp"))


def target(row: Row) -> Row:
    """What is trained on what, without names and numbers."""
    return replace(row, names=(), paper=())


@pytest.mark.parametrize("table", TABLES.values(), ids=lambda table: table.name)
def test_every_row_fits_its_heading_and_no_two_are_alike(table: Experiment) -> None:
    for row in table.rows:
        assert len(row.names) == len(table.columns)
        assert len(row.paper) == len(table.scores)
        assert all(number is None or 0 <= number < 100 for number in row.paper)
    assert len({row.names for row in table.rows}) == len(table.rows)
    targets = [target(row) for row in table.rows]
    assert len(set(targets)) == len(targets)


def test_the_tables_have_the_papers_size() -> None:
    assert {number: len(table.rows) for number, table in TABLES.items()} == {
        **{1: 10, 2: 14, 3: 20, 4: 2, 5: 4},
        **{6: 4, 7: 6},
    }


@pytest.mark.parametrize("table", TABLES.values(), ids=lambda table: table.name)
def test_looser_overlaps_score_higher(table: Experiment) -> None:
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
    found = {(number, target(row)): row.paper[0] for number, table in TABLES.items() for row in table.rows}
    assert [found[number, METHOD] for number in (1, 4, 5, 7)] == [23.5] * 4
    assert [found[number, PLAIN] for number in (5, 7)] == [21.7] * 2


def test_table_6_is_of_boxes_and_before_fine_tuning() -> None:
    assert TABLES[6].scores == ("box_AP", "box_AP50", "box_AP75")
    masks = {"solov2": "freemask checkpoint", "detr": "random", "deformable_detr": "merging", "knet": "saliency"}
    rows = [replace(METHOD, model=model, masks=made, epochs=0) for model, made in masks.items()]
    assert [target(row) for row in TABLES[6].rows] == rows
    assert all(TABLES[number].scores == SCORES for number in range(1, 6))


def test_names_are_those_of_the_targets() -> None:
    for number in (1, 2, 3):
        for row in TABLES[number].rows:
            assert row.names[0] == DATASETS[row.dataset]
            assert row.names[-1] == (INITS | {"sp": "SP"})[row.init]
            assert (row.masks, row.options) == ("saliency" if row.init == "sp" else "", ())


def test_figures_show_rows_of_the_tables_or_those_fine_tuned_for_less() -> None:
    of_tables = {number: [target(row) for row in table.rows] for number, table in TABLES.items()}
    shown = {number: [target(row) for row in figure.rows] for number, figure in FIGURES.items()}
    assert shown[3] == [row for row in of_tables[1] if row.dataset == "coco10"]
    assert shown[4] == [row for row in of_tables[2] if (row.model, row.init) in AGAINST_MASK_RCNN]
    assert shown[5] == [METHOD]
    assert shown[6] == [replace(row, epochs=2) for row in shown[3] if row.init in ("imagenet", "densecl", "sp")]


def test_every_note_has_its_table_or_figure() -> None:
    names = {experiment.name for experiment in (*TABLES.values(), *FIGURES.values())}
    assert {name for of, _, _ in NOTES for name in of.split()} <= names
