"""`make prelabel`: the proposals of a shard set as label files."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO

from pipelines.shards import FORMATS
from stage1_proposals.common.label_files import WRITERS
from stage1_proposals.generators.registry import build_generator
from stage1_proposals.images.listing import list_images
from stage1_proposals.jobs.request import Job, JobSettings, Recipe
from stage1_proposals.jobs.run import run as run_job
from stage1_proposals.shards import ShardSet
from stage2_training.labels.conversion import numbered
from stage2_training.labels.labelme import convert_labelme
from tests.pipelines.command import run_command
from tests.shard_sets import read_all


def run(*argv: object) -> int:
    return run_command("prelabel", *argv)


@pytest.fixture(scope="module")
def shards(image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three shards of the small images. Not to be changed."""
    directory = tmp_path_factory.mktemp("made") / "shards"
    settings = JobSettings(images_per_shard=5, short_side=64, long_side=128)
    job = Job(list_images(image_folder), Recipe(build_generator({}), "lite0_imagenet", None, "cpu", settings=settings))
    run_job(job, directory, 0, lambda _: None)
    return directory


def test_the_formats_are_those_that_can_be_written() -> None:
    assert set(FORMATS) == set(WRITERS)


def test_coco_json_loads_in_pycocotools(shards: Path, tmp_path: Path) -> None:
    assert run("--shards", shards, "--format", "coco", "--out", tmp_path / "new") == 0
    coco = COCO(str(tmp_path / "new" / "coco.json"))
    assert len(coco.getImgIds()) == 12
    record = read_all(shards)[0]
    annotations = coco.loadAnns(coco.getAnnIds(imgIds=record.image_id))
    assert [annotation["score"] for annotation in annotations] == record.score.tolist()
    for annotation, mask in zip(annotations, record.masks(), strict=True):
        assert np.array_equal(coco.annToMask(annotation), mask)


def test_labelme_files_read_back_give_the_proposals(
    shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--shards", shards, "--out", tmp_path, "--name", "thing") == 0
    records = {record.file_name: record for record in read_all(shards)}
    count = sum(map(len, records.values()))
    out = capsys.readouterr().out
    assert out == f"{tmp_path}: {count} proposals of 12 images as labelme\n12 files written, 0 were there already\n"
    converted = convert_labelme(tmp_path / "labelme", Path(ShardSet.open(shards).image_root)).coco
    assert [category["name"] for category in converted["categories"]] == ["thing"]
    api = COCO()
    api.dataset = {**converted, "annotations": numbered(converted["annotations"])}
    api.createIndex()
    assert len(api.dataset["annotations"]) == count
    for image in converted["images"]:
        found = [api.annToMask(one).astype(bool) for one in api.loadAnns(api.getAnnIds(image["id"]))]
        for mask, expected in zip(found, records[image["file_name"]].masks().astype(bool), strict=True):
            assert (mask & expected).sum() >= 0.98 * (mask | expected).sum()


def test_the_best_and_those_above_a_score_are_written(shards: Path, tmp_path: Path) -> None:
    scores = np.concatenate([record.score for record in read_all(shards)])
    lowest = float(np.median(scores))
    assert run("--shards", shards, "--format", "coco", "--out", tmp_path / "a", "--score", lowest) == 0
    annotations = json.loads((tmp_path / "a" / "coco.json").read_text())["annotations"]
    assert len(annotations) == (scores >= lowest).sum()
    assert run("--shards", shards, "--format", "coco", "--out", tmp_path / "b", "--best", 1) == 0
    annotations = json.loads((tmp_path / "b" / "coco.json").read_text())["annotations"]
    assert [one["score"] for one in annotations] == [record.score[0] for record in read_all(shards) if len(record)]


def test_a_score_that_none_has_writes_nothing(shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    highest = max(float(record.score.max(initial=0)) for record in read_all(shards))
    assert run("--shards", shards, "--out", tmp_path, "--score", 0.9999) == 2
    assert f"has a score of 0.9999 or more, the highest is {highest:.3g}: choose a lower" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_corrected_files_stay_and_are_told(shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["--shards", shards, "--out", tmp_path, "--format", "labelme, yolo"]
    assert run(*command) == 0
    first, second, *_ = sorted((tmp_path / "labelme").rglob("*.json"))
    first.write_text("corrected")
    second.unlink()
    capsys.readouterr()
    assert run(*command) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0].endswith("as labelme, yolo")
    assert told[1] == "1 files written, 24 were there already"
    assert told[2].startswith(f"1 files that hold other labels stay as they are, {first} first; to have")
    assert first.read_text() == "corrected"


def test_images_may_have_moved(
    shards: Path, image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--shards", shards, "--out", tmp_path, "--image-root", tmp_path / "gone") == 2
    assert capsys.readouterr().err == (
        f"error: {tmp_path}/gone: the folder of the images is not there; say where it is with --image-root\n"
    )
    os.symlink(image_folder, tmp_path / "moved")
    assert run("--shards", shards, "--out", tmp_path, "--image-root", tmp_path / "moved") == 0
    path = sorted((tmp_path / "labelme").rglob("*.json"))[0]
    assert (path.parent / json.loads(path.read_text())["imagePath"]).is_file()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--format", "voc"], "Invalid value for '--format': 'voc' is not one of 'coco', 'labelme', 'yolo'."),
        (["--format", "coco,"], "Invalid value for '--format': '' is not one of 'coco', 'labelme', 'yolo'."),
        (["--score", "2"], "--score '2': must be between 0 and 1"),
        (["--out", "{tmp}/file", "--format", "coco"], "{tmp}/file/coco.json: cannot be written (File exists)"),
        (["--shards", "{tmp}"], "{tmp}: no shard set here (no manifest.json)"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_user_error_is_one_clear_line_and_2(
    shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    (tmp_path / "file").touch()
    words = [option.replace("{tmp}", str(tmp_path)) for option in options]
    assert run("--shards", shards, "--out", tmp_path, *words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: " + message.replace("{tmp}", str(tmp_path)))
