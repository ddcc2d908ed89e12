"""`table proposals`: missing shard sets are made, all are scored, and what is there is not made again."""

from pathlib import Path

import pytest

from stage1_proposals.analysis.prelabels import image_labels
from stage1_proposals.analysis.recall import HEADING
from stage1_proposals.common.label_files import CocoWriter, NewFiles
from stage1_proposals.images.listing import list_images
from stage1_proposals.jobs.request import job_of
from stage1_proposals.jobs.run import run
from stage1_proposals.shards import ShardSet
from tests.pipelines.command import run_command


@pytest.fixture(scope="module")
def labels(image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The masks of the merging generator, as labels."""
    root = tmp_path_factory.mktemp("labels")
    run(job_of(list_images(image_folder), "merging", "lite0_imagenet", "cpu", 64), root / "made", 0, lambda _: None)
    writer = CocoWriter(root, image_folder, ["object"], NewFiles())
    for record in ShardSet.open(root / "made").records():
        writer.write(image_labels(record))
    writer.close()
    return (root / "coco.json").rename(root / "labels.json")


def test_generators_are_scored_and_timed(
    image_folder: Path, labels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["table", "proposals", "--images", image_folder, "--labels", labels, "--short-side", 64, "--workers", 0]
    words += ["--work-dir", tmp_path / "work", "--backbone", "lite0_imagenet", "--generator"]
    assert run_command(*words, "merging", "saliency,component=seed,max_proposals=2") == 0
    (page,) = (tmp_path / "work").glob("*/labels.md")
    lines = [line for line in page.read_text().splitlines() if line.startswith("|")]
    heading, _, merging, saliency = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    assert heading == [*HEADING, "backbone s", "generator s"]
    assert merging[:2] == ["merging", "lite0_imagenet"]
    assert merging[5:15] == ["100.00"] * 10
    assert saliency[0] == "saliency component=seed max_proposals=2"
    assert float(saliency[5]) < 50
    assert all(float(seconds) > 0 for seconds in merging[15:])
    assert "saliency component=seed max_proposals=2" in capsys.readouterr().out
    shards = sorted((tmp_path / "work").glob("*/*/*.h5"))
    times = [path.stat().st_mtime_ns for path in shards]
    assert run_command(*words, "merging") == 0
    assert [path.stat().st_mtime_ns for path in shards] == times


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--labels", "{tmp}/gone.json"], "labels {tmp}/gone.json: cannot be read"),
        (["--labels", "{labels}", "--generator", "merging", "magic"], "no generator 'magic'"),
        (["--labels", "{labels}", "--generator", "merging,cells=3"], "generator merging has no setting cells"),
        (["--labels", "{labels}", "--backbone", "magic"], "no backbone 'magic'"),
        ([], "Missing option '--labels'."),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_user_error_is_one_clear_line_before_any_run(
    image_folder: Path,
    labels: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    message: str,
) -> None:
    places = {"tmp": tmp_path, "labels": labels}
    words = ["table", "proposals", "--images", image_folder, "--work-dir", tmp_path / "work", "--workers", 0]
    assert run_command(*words, *(option.format(**places) for option in options)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert message.format(**places) in line
    assert not (tmp_path / "work").exists()
