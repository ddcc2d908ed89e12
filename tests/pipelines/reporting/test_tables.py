import json

import pytest
from pipelines.reporting.notes import Notes
from pipelines.reporting.tables import read_table


@pytest.fixture
def read(tmp_path):
    """(fields of a table's JSON) -> the table, and the notes."""

    def read(**fields):
        path = tmp_path / "scale" / "tables" / "table1.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(fields))
        notes = Notes(tmp_path)
        return read_table(path, notes), notes.lines

    return read


ROWS = [
    ["COCO 10 %", "SP", "20.0 ± 1.0", "9"],
    ["COCO 10 %", "none", "19.5", "8"],
    ["COCO 5 %", "SP", "-", "7"],
    ["COCO 5 %", "none", "9.5", "6"],
]
HEADING = ["labels", "start", "AP", "epochs"]


def test_the_best_is_that_of_the_same_labels(read):
    table, notes = read(title="T", heading=HEADING, rows=ROWS)
    assert notes == []
    assert [[cell.text for cell in row if cell.best] for row in table.rows] == [["20.0 ± 1.0"], [], [], []]
    assert [[cell.number for cell in row] for row in table.rows] == [[False, False, True, True]] * 4
    assert (table.about.title, table.beside, table.paper, table.about.runs) == ("T", False, [], [])


@pytest.mark.parametrize(
    ("scores", "best"),
    [
        (["20.0 ± 1.0", "20.0 ± 0.3", "19.9"], ["20.0 ± 1.0", "20.0 ± 0.3"]),
        (["20.0", "20.0 ± 0.3"], []),
        (["0.0", "0.0", "-"], []),
        (["20.0", "-"], []),
        (["-", "-"], []),
    ],
)
def test_all_that_are_shown_as_the_best_are_unless_all_rows_are(read, scores, best):
    table, _ = read(heading=["start", "AP"], rows=[[f"start {number}", score] for number, score in enumerate(scores)])
    assert [cell.text for row in table.rows for cell in row if cell.best] == best


def test_the_papers_numbers_stand_in_ours_where_rows_are_alike(read):
    paper = [[*row[:2], "30.0", "9"] for row in ROWS]
    table, _ = read(title="T", number=1, scale="demo", heading=HEADING, rows=ROWS, paper=paper, runs=["runs/a"])
    assert [cell.paper for cell in table.rows[0]] == ["", "", "30.0", ""]
    assert (table.about.title, table.beside, table.paper) == ("Table 1: T (demo scale)", True, [])
    assert table.about.runs == ["scale/runs/a"]


@pytest.mark.parametrize("paper", [[["x", "SP", "1", "2"]] * 4, [["COCO 10 %", "1"]]])
def test_other_rows_of_the_paper_stand_apart(read, paper):
    table, _ = read(title="T", heading=HEADING, rows=ROWS, paper=paper)
    assert (table.beside, table.paper) == (False, paper)
    assert not any(cell.paper for row in table.rows for cell in row)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"heading": HEADING},
        {"heading": HEADING, "rows": 3},
        {"heading": HEADING, "rows": [3]},
        {"heading": HEADING, "rows": [["too short"]]},
        {"heading": HEADING, "rows": ROWS, "notes": 3},
        {"heading": HEADING, "rows": ROWS, "seconds": float("nan")},
    ],
)
def test_what_is_no_table_is_noted(read, fields):
    table, notes = read(**fields)
    assert table is None
    assert len(notes) == 1
    assert notes[0].startswith("scale/tables/table1.json: ")


def test_no_rows_are_a_table(read):
    table, notes = read(heading=HEADING, rows=[], paper=None)
    assert (table.about.title, table.rows, notes) == ("table1", [], [])
