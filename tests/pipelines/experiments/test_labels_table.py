"""`table labels`: runs of parts of the labels, shared with the paper's tables, and what is said of them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.experiments.paper import TABLES
from pipelines.experiments.plan import Plan
from pipelines.experiments.record import ExperimentRecord
from pipelines.experiments.scales import DEMO
from tests import miniatures
from tests.pipelines.command import parse, run_command

SMALL = ("--count", 4, 5, 2, "--device", "cpu")
NAMES = ("mask_rcnn_lite0, ImageNet weights", "knet_lite0, ImageNet weights", "knet_lite0, Saliency Prompt")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., int]:
    monkeypatch.chdir(tmp_path)
    return lambda *words: run_command("table", "labels", *words)


@pytest.fixture
def planned(run: Any, capsys: pytest.CaptureFixture[str]) -> Callable[..., list[dict[str, Any]]]:
    """The settings of the fine-tunings that a command line plans, and their names."""

    def settings(*words: object) -> list[dict[str, Any]]:
        assert run(*words, "--dry-run") == 0
        lines = capsys.readouterr().out.splitlines()
        commands = [line.split("pipelines ")[1].split() for line in lines if "$ python" in line]
        return [parse(*words) for words in commands if words[0] == "finetune"]

    return settings


def name(run: dict[str, Any]) -> str:
    return Path(run["work_dir"]).name


def test_every_start_is_trained_on_every_number_of_images(planned: Any) -> None:
    runs = planned("--seeds", 0, 3, "--sizes", 40, 20, "--starts", "sp", "imagenet", "--baseline", "solov2_lite0")
    found = [(run["model"], run["init"], run["train_images"], run["seed"]) for run in runs]
    starts = [("knet_lite0", "sp"), ("knet_lite0", "imagenet"), ("solov2_lite0", "imagenet")]
    assert len(found) == 18
    assert set(found) == {(*start, size, seed) for start in starts for size in (20, 40, None) for seed in (0, 3)}
    assert [run["seed"] for run in runs] == [0] * 9 + [3] * 9
    # Pre-training can fail at its start, so it comes first.
    assert [run["init"] for run in runs[:9]] == ["sp"] * 3 + ["imagenet"] * 6
    assert {run["dataset"] for run in runs} == {"demo"}
    assert len({run["data_root"] for run in runs}) == 1  # the same test images


def test_all_images_are_the_runs_of_the_papers_tables(planned: Any) -> None:
    known = {run.name for number in (2, 3, 5) for run in Plan(DEMO, Path()).runs(TABLES[number], [0])}
    whole = [run for run in planned("--model", "knet_lite0", "queryinst_lite0") if run["train_images"] is None]
    assert len(whole) == 7
    shared = [run for run in whole if (run["model"], run["init"]) != ("queryinst_lite0", "pseudo")]
    assert {name(run) for run in shared} <= known


def test_parts_train_for_as_many_steps_as_all_unless_epochs_are_given(planned: Any) -> None:
    parts = [run for run in planned("--baseline", "none") if run["train_images"]]
    assert {run["epochs"] for run in parts} == {None}  # `--train-images` sees to it
    given = planned("--baseline", "none", "--finetune-epochs", 3, "--image-size", 64)
    assert {(run["epochs"], run["image_size"]) for run in given} == {(3, 64)}
    assert {name(run) for run in given}.isdisjoint(map(name, parts))


@pytest.mark.parametrize(("count", "sizes"), [(60, {10, 20, 40, None}), (20, {10, None}), (5, {None})])
def test_sizes_are_those_that_there_are(planned: Any, count: int, sizes: set[int | None]) -> None:
    runs = planned("--count", 9, count, 9, "--starts", "imagenet", "--baseline", "none")
    assert {run["train_images"] for run in runs} == sizes


def test_a_table_a_picture_and_a_conclusion_are_made(run: Any, commands: Any, tmp_path: Path, capsys: Any) -> None:
    commands.scores = {
        f"--train-images 2 --seed {seed}": {"AP": 0.1} for seed in (0, 1)
    } | {  # of `Commands`, the first that fits
        "--init sp": {"AP": 0.3},
        "mask_rcnn": {"AP": 0.2},
        "--seed 0": {"AP": 0.25},
        "--seed 1": {"AP": 0.15},
    }
    words = (*SMALL, "--sizes", 2, "--seeds", 0, 1, "--starts", "imagenet", "sp")
    assert run(*words) == 0
    folder = tmp_path / "work_dirs" / "experiments" / "demo" / "figures"
    record = ExperimentRecord.read(folder / "labels.record.json")
    assert record.heading == ["model, initial weights", "2", "all 5"]
    assert [row[0] for row in record.rows] == [NAMES[1], NAMES[2], NAMES[0]]
    assert record.rows[0][1:] == ["10.0 ± 0.0", "20.0 ± 7.1"]
    assert record.conclusions == [
        "knet_lite0, Saliency Prompt against ImageNet weights: more AP with 5 (+10.0, by seed +5.0 to +15.0); no clear "
        "difference with 2 (+0.0, by seed +0.0 to +0.0) labelled images.",
        "knet_lite0, Saliency Prompt against mask_rcnn_lite0, ImageNet weights: more AP with 5 (+10.0, by seed +10.0 "
        "to +10.0); no clear difference with 2 (+0.0, by seed +0.0 to +0.0) labelled images.",
    ]
    page, printed = (folder / "labels.md").read_text(), capsys.readouterr().out
    assert "| knet_lite0, ImageNet weights | 10.0 ± 0.0 | 20.0 ± 7.1 |" in page
    assert "![labels](labels.png)" in page
    assert all(sentence in page and sentence in printed for sentence in (*record.conclusions, *record.notes))
    assert (folder / "labels.png").is_file()
    assert json.loads((folder / "labels.json").read_text())["AP"][NAMES[1]] == {"2": [0.1, 0.1], "5": [0.25, 0.15]}
    assert run_command("report", "--work-dir", folder.parent) == 0
    assert record.conclusions[0] in (folder.parent / "report.html").read_text()
    count = len(commands.seen)
    assert run(*words) == 0
    assert len(commands.seen) == count  # all is there


@pytest.fixture
def own(run: Any, tmp_path: Path, write_shards: Any, make_record: Any, rectangles: Any) -> tuple[object, ...]:
    """Five labelme files and a shard set, as options."""
    miniatures.labelme(tmp_path / "mine")
    masks = rectangles([(0, 0, 20, 20)], 48, 64)
    shards = write_shards([[make_record(1, "1.png", masks, [[0.0] * 4])]])
    return "--dataset", "mine", "--shards", shards.directory, "--starts", "imagenet", "sp", "--baseline", "none"


def test_labels_of_ones_own_are_trained_on_as_by_finetune(planned: Any, own: Any, tmp_path: Path) -> None:
    words = (*own, "--sizes", 2, "--classes", "cat", "--held-out-seed", 1, "--finetune-schedule", "finetune_cpu")
    runs = planned(*words)
    assert [(run["init"], run["train_images"]) for run in runs] == [
        *(("sp", 2), ("sp", None), ("imagenet", 2), ("imagenet", None))
    ]
    for run in runs:
        assert (run["dataset"], run["classes"], run["held_out_seed"]) == ("mine", ("cat",), 1)
        assert (run["schedule"], run["epochs"], run["image_size"]) == ("finetune_cpu", None, None)
    assert list(map(name, planned(*words))) == list(map(name, runs))


def test_other_labels_and_other_shards_are_other_runs(planned: Any, own: Any, tmp_path: Path) -> None:
    def names() -> dict[str, str]:
        return {run["init"]: name(run) for run in planned(*own) if run["train_images"] is None}

    before = names()
    for path in (tmp_path / "mine").rglob("*.json"):
        path.write_text(path.read_text().replace('"cat"', '"horse"'))
    labelled = names()
    manifest = Path(str(own[3])) / "manifest.json"
    content = json.loads(manifest.read_text())["shards"][0]["content_sha256"]
    manifest.write_text(manifest.read_text().replace(content, "0" * 64))
    proposed = names()
    assert labelled["sp"] != before["sp"]
    assert labelled["imagenet"] != before["imagenet"]
    assert proposed["sp"] != labelled["sp"]
    assert proposed["imagenet"] == labelled["imagenet"]


def test_a_config_of_ones_own_is_known_by_what_it_holds(planned: Any, tmp_path: Path) -> None:
    model = tmp_path / "mine.py"
    names = []
    for epochs in (3, 3, 4):
        base = Path(__file__).parents[3] / "configs" / "models" / "solov2_lite0.py"
        model.write_text(f"_base_ = {str(base)!r}\n# {epochs}\n")
        names.append(name(planned("--baseline", model, "--starts", "imagenet", "--sizes", 5)[0]))
    assert names[0] == names[1] != names[2]
    assert names[0].startswith("finetune-demo60-5images-mine-imagenet-seed0-")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--sizes", 10, 61], "--sizes 61: there are 60 images with objects to train on"),
        (["--shards", "there"], "--held-out-seed and --skip-malformed go with a --dataset of your own"),
        (["--held-out-seed", 3], "--held-out-seed and --skip-malformed go with a --dataset of your own"),
        (["--starts", "magic"], "'magic' is not one of 'sp', 'pseudo', 'imagenet', 'coco'"),
        (["--model", "magic"], "no model 'magic'"),
        (["--baseline", "magic"], "no model 'magic'"),
        (["--baseline", "detr_lite0"], "DETR: finds boxes alone, and this needs masks"),
        (["--model", "mask_rcnn_lite0"], "there is no configs/pretraining/mask_rcnn_lite0.py"),
        (["--finetune-schedule", "magic"], "no schedule 'magic'"),
        (["--dataset", "mine"], "shards: no shard set here"),
        (["--dataset", "mine", "--starts", "imagenet", "--sizes", 5], "--sizes 5: there are 4 images with objects"),
        (["--dataset", "mine", "--count", 1, 1, 1], "--count goes with the demo set, not mine"),
        (["--dataset", "gone.json"], "gone.json: "),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else "",
)
def test_a_user_error_is_one_line_before_any_run(
    run: Any, commands: Any, tmp_path: Path, capsys: Any, words: list[object], message: str
) -> None:
    miniatures.labelme(tmp_path / "mine")
    assert run(*words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert commands.seen == []
    assert not (tmp_path / "work_dirs").exists()
