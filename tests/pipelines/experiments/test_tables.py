"""`table 1..7`: from nothing to a table, with commands that leave what the real ones leave."""

import json
import statistics
from itertools import pairwise
from pathlib import Path

import pytest

from pipelines.experiments.paper import TABLES
from pipelines.experiments.record import ExperimentRecord, mean_and_spread
from tests import miniatures
from tests.pipelines.command import run_command

SMALL = ("--count", 4, 2, 2, "--pretrain-epochs", 1, "--finetune-epochs", 1, "--device", "cpu")


def scores(ap: float) -> dict[str, float]:
    return {"AP": ap, "AP50": 2 * ap, "AP75": ap / 2, "AP_S": -1.0, "AP_M": ap, "AP_L": ap}


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    return lambda *words: run_command("table", *words)


def test_a_table_is_made_printed_and_written(run, commands, tmp_path: Path, capsys) -> None:
    commands.scores = {
        "--init imagenet --data-root": scores(0.05),
        "--init sp": scores(0.08),
        "--seed 1": scores(0.1),
    }
    assert run("2", *SMALL, "--seeds", 0, 1, 0) == 0
    out = capsys.readouterr().out
    folder = tmp_path / "work_dirs" / "experiments" / "demo"
    table = json.loads((folder / "tables" / "table2.json").read_text())
    assert ExperimentRecord.read(folder / "tables" / "table2.json").text(markdown=True) == (
        (folder / "tables" / "table2.md").read_text()
    )
    assert table["heading"] == ["labels", "model", "initialisation", "AP", "AP50", "AP75", "AP_S", "AP_M", "AP_L"]
    assert table["rows"][3] == [
        "CTW1500",
        "K-Net",
        "SP",
        "8.0 ± 0.0",
        "16.0 ± 0.0",
        "4.0 ± 0.0",
        "-",
        *["8.0 ± 0.0"] * 2,
    ]
    assert table["paper"][3] == ["CTW1500", "K-Net", "SP", "34.6", "71.1", "31.0", "18.0", "36.1", "45.7"]
    assert len(table["rows"]) == len(table["paper"]) == 4
    assert all((folder / name).is_dir() for name in table["runs"])
    assert len(table["runs"]) == len(table["commands"]) == len(commands.seen) == 2 + 2 * 5
    assert table["commands"][0].startswith("python -m pipelines data --dataset demo --count 4 2 2 --data-root ")
    assert table["scale"] == "demo"
    assert "CTW1500  K-Net       SP              8.0 ± 0.0 (34.6)  16.0 ± 0.0 (71.1)" in out
    for note in table["notes"]:
        assert f"- {note}\n" in out
    assert any(note.startswith("Sizes that are not the paper's: EfficientNet-Lite0") for note in table["notes"])
    assert table["notes"][0].startswith("Mean ± sample standard deviation over seeds 0, 1; ")
    assert table["notes"][-2:] == [
        "Epochs of pre-training: 1 (the paper: 12).",
        "Epochs of fine-tuning: at most 1 (the paper: 24 to 96, by dataset).",
    ]
    page = (folder / "tables" / "table2.md").read_text()
    assert "| CTW1500 | K-Net | SP | 8.0 ± 0.0 (34.6) |" in page
    assert table["commands"][-1] in page


def test_a_table_that_is_there_is_printed_again(run, commands, capsys) -> None:
    commands.scores = {"--init": scores(0.05)}
    assert run("4", *SMALL) == 0
    count, first = len(commands.seen), capsys.readouterr().out
    assert run("4", *SMALL) == 0
    assert len(commands.seen) == count
    assert "5.0 (23.5)" in first
    assert capsys.readouterr().out.partition("\n\n")[2] == first[first.index("Table 4, at demo scale") :]


def test_class_agnostic_scores_are_those_of_boxes(run, commands, capsys) -> None:
    commands.scores = {"--class-agnostic": {"AP": 0.9, "box_AP": 0.021, "box_AP50": 0.06, "box_AP75": -1.0}}
    assert run("6", *SMALL) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split() for line in lines if line.startswith(("FreeSOLO  ", "K-Net"))]
    assert rows == [
        ["FreeSOLO", "yes", "2.1", "(5.5)", "6.0", "(12.2)", "-", "(4.2)"],
        ["K-Net", "with", "SP", "no", "2.1", "(3.2)", "6.0", "(8.5)", "-", "(2.0)"],
    ]


@pytest.mark.parametrize("scale", ["demo", "paper"])
@pytest.mark.parametrize("number", TABLES)
def test_a_dry_run_runs_nothing(run, commands, tmp_path: Path, capsys, number: int, scale: str) -> None:
    assert run(number, "--scale", scale, "--dry-run") == 0
    assert "0 of them finished." in capsys.readouterr().out
    assert commands.seen == []
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_fails_ends_it_with_2(run, commands, capsys) -> None:
    commands.codes[3] = 2
    assert run("5", *SMALL) == 2
    assert capsys.readouterr().err == (
        "error: step `pretrain` ended with exit code 2; run the same command again to resume\n"
    )


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_work_directory_that_cannot_be_is_one_line_before_any_run(
    run, commands, tmp_path: Path, capsys, jobs: int
) -> None:
    (tmp_path / "file").touch()
    assert run("5", *SMALL, "--work-dir", "file/x", "--jobs", jobs) == 2
    assert capsys.readouterr().err == "error: file/x/demo/runs/state.json: cannot be written (Not a directory)\n"
    assert commands.seen == []


def test_images_are_the_demo_sets(run, capsys) -> None:
    assert run("5", "--scale", "paper", *SMALL) == 2
    assert "error: --count goes with --scale demo" in capsys.readouterr().err


def test_a_table_that_is_not_there_is_one_line_and_2(run, capsys) -> None:
    assert run("8") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "No such command '8'; use one of 1, 2, 3, 4, 5, 6, 7, labels, proposals." in line


@pytest.fixture
def own(tmp_path: Path) -> tuple[str, ...]:
    """Options of a table of own images: two unlabeled ones, and the labels of two others."""
    for number in range(2):
        miniatures.image(number, tmp_path / "many" / f"{number}.jpg")
    labels = miniatures.coco(tmp_path / "coco", val=2) / "annotations" / "instances_val2017.json"
    return "--images", str(tmp_path / "many"), "--labels", str(labels)


def test_class_agnostic_boxes_of_own_images(run, own, commands, tmp_path: Path, capsys) -> None:
    commands.scores = {"--class-agnostic": {"AP": 0.9, "box_AP": 0.021, "box_AP50": 0.06, "box_AP75": 0.01}}
    small = ("--pretrain-epochs", 1, "--device", "cpu", *own)
    assert run("6", *small) == 0
    record = ExperimentRecord.read(tmp_path / "work_dirs/experiments/instances_val2017/tables/table6.json")
    assert [row[2] for row in record.rows] == ["2.1"] * 4
    assert record.name == f"Table 6, on instances_val2017: {TABLES[6].title}"
    assert record.notes[2] == f"Pre-trained on the images of {own[1]}, evaluated on {own[3]}."
    assert not any("demo" in word for words in commands.seen for word in words if word.startswith("--dataset"))
    assert {words[0] for words in commands.seen} == {"proposals", "pretrain", "evaluate"}  # no data is made
    evaluations = [words for words in commands.seen if words[0] == "evaluate"]
    for words in evaluations:
        given = dict(pairwise(words))
        assert given["--dataset"] == given["--test-labels"] == own[3]
    count = len(commands.seen)
    assert run("6", *small) == 0
    assert len(commands.seen) == count
    (tmp_path / "many").rename(tmp_path / "moved")  # where they are does not matter
    moved = [word.replace("many", "moved") if isinstance(word, str) else word for word in small]
    assert run("6", *moved) == 0
    assert len(commands.seen) == count
    miniatures.image(2, tmp_path / "moved" / "2.jpg")  # other images are other shards
    assert run("6", *moved) == 0
    assert len(commands.seen) == 2 * count
    miniatures.image(3, tmp_path / "moved" / "2.jpg")  # also if they have the same names
    assert run("6", *moved) == 0
    assert len(commands.seen) == 3 * count


@pytest.mark.parametrize(
    ("left_out", "more", "message"),
    [
        ("--labels", (), "--images and --labels go together"),
        ("--images", (), "--images and --labels go together"),
        (None, ("--count", 4, 2, 2), "--count goes with the demo set, not with --images and --labels"),
        (None, ("--scale", "paper"), "--images and --labels go with --scale demo"),
    ],
)
def test_own_images_need_labels_and_no_others(run, own, capsys, left_out, more, message: str) -> None:
    given = [word for pair in zip(own[::2], own[1::2], strict=True) if pair[0] != left_out for word in pair]
    assert run("6", "--dry-run", *given, *more) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": "moved"}, "none of its 2 images is under"),
        ({"labels": "labels.txt"}, "name a COCO instance JSON, in a file with the suffix .json"),
        ({"categories": None}, "has no list `categories`"),
        ({"annotations": []}, "nothing to evaluate on"),
        ({"first image": "moved.jpg"}, "moved.jpg is missing"),
    ],
)
def test_labels_that_no_evaluation_can_use_are_refused_at_the_start(
    run, own, tmp_path, capsys, change, message
) -> None:
    """Not after the hours of pre-training."""
    labels = Path(own[3])
    content = json.loads(labels.read_text())
    if "images" in change:
        (tmp_path / "coco" / "val2017").rename(tmp_path / change["images"])
    if "categories" in change:
        del content["categories"]
    if "annotations" in change:
        content["annotations"] = change["annotations"]
    if "first image" in change:
        content["images"][0]["file_name"] = change["first image"]
    given = labels.with_name(change.get("labels", labels.name))
    given.write_text(json.dumps(content))
    assert run("6", "--dry-run", *own[:2], "--labels", given) == 2
    assert message in capsys.readouterr().err


def test_labels_named_like_a_scale_leave_its_folder_alone(run, own, commands, tmp_path: Path) -> None:
    commands.scores = {"--class-agnostic": {"box_AP": 0.02, "box_AP50": 0.06, "box_AP75": 0.01}}
    labels = Path(own[3])
    named = labels.rename(tmp_path / "coco" / "val2017" / "demo.json")
    assert run("6", "--device", "cpu", *own[:3], named) == 0
    assert [path.name for path in (tmp_path / "work_dirs/experiments").iterdir()] == ["demo-labels"]


def test_only_the_table_without_labels_takes_own_images(run, own, capsys) -> None:
    assert run("5", "--dry-run", *own) == 2
    assert "No such option '--images'" in capsys.readouterr().err


def test_masks_of_freesolo_that_are_not_there_are_refused_at_once(run, tmp_path: Path, capsys) -> None:
    assert run(7, "--dry-run", "--freesolo", tmp_path / "masks.json") == 2
    assert capsys.readouterr().err == (
        f"error: Invalid value for '--freesolo': File '{tmp_path}/masks.json' does not exist.\n"
    )


def test_masks_of_freesolo_are_imported(run, tmp_path: Path, capsys) -> None:
    (tmp_path / "masks.json").touch()
    assert run(7, "--dry-run", "--freesolo", "masks.json") == 0
    assert f"""--generator import --set 'file="{tmp_path}/masks.json"'""" in capsys.readouterr().out


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
