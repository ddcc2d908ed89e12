"""`make recall`: what it prints and refuses."""

from pathlib import Path

import pytest

from stage1_proposals.analysis.prelabels import image_labels
from stage1_proposals.common.label_files import CocoWriter, NewFiles
from stage1_proposals.generators.registry import build_generator
from stage1_proposals.images.listing import list_images
from stage1_proposals.jobs.request import Job, JobSettings, Recipe
from stage1_proposals.jobs.run import run as run_job
from stage1_proposals.shards import ShardSet
from tests.pipelines.command import run_command

HEADING = ["generator", "backbone", "short side", "images", "per image"]
HEADING += [f"{kind} {score}" for kind in ("mask", "box") for score in ("AP", "AP50", "AP75", "AR@20", "AR@100")]


def run(*argv: object) -> int:
    return run_command("recall", *argv)


@pytest.fixture(scope="module")
def made(image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Shards of the small images with at most three proposals each, and these as labels. Not to be changed."""
    root = tmp_path_factory.mktemp("made")
    generator = build_generator({"max_proposals": 3})
    settings = JobSettings(images_per_shard=7, batch_size=8, short_side=64, long_side=128)
    job = Job(list_images(image_folder), Recipe(generator, "lite0_imagenet", None, "cpu", settings=settings))
    run_job(job, root / "shards", 0, lambda _: None)
    writer = CocoWriter(root, image_folder, ["object"], NewFiles())
    for record in ShardSet.open(root / "shards").records():
        writer.write(image_labels(record))
    writer.close()
    return root / "shards", root / "coco.json"


def table_of(capsys: pytest.CaptureFixture[str]) -> list[list[str]]:
    """The cells of the Markdown table printed last."""
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_shards_score_100_against_their_own_proposals(
    made: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    shards, labels = made
    assert run("--shards", shards, shards, "--labels", labels, "--markdown") == 0
    heading, rule, first, second = table_of(capsys)
    proposals = sum(entry.proposals for entry in ShardSet.open(shards).entries)
    assert heading == HEADING
    assert rule == ["---"] * 2 + ["---:"] * 13
    expected = ["saliency max_proposals=3", "lite0_imagenet", "64", "12", f"{proposals / 12:.1f}", *["100.00"] * 10]
    assert first == second == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--labels", "{labels}"], "Missing option '--shards'."),
        (["--shards", "{tmp}"], "Missing option '--labels'."),
        (["--labels", "{labels}", "--shards", "{tmp}"], "{tmp}: no shard set here"),
        (["--labels", "{labels}", "--shards", "s3://a/b"], "--shards s3://a/b: is a URL; `make fetch"),
        (["--shards", "{tmp}", "--labels", "{tmp}/gone.json"], "labels {tmp}/gone.json: cannot be read"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_user_error_is_one_clear_line_and_2(
    made: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    message: str,
) -> None:
    places = {"tmp": tmp_path, "labels": made[1]}
    assert run(*(option.format(**places) for option in options)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert message.format(**places) in line
