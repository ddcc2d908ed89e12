"""`make inspect`: what it prints, writes and refuses."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stage1_proposals.analysis.index import similar_proposals
from stage1_proposals.common.drawing import CAPTION, GAP, TILE, draw_proposals
from stage1_proposals.generators.registry import build_generator
from stage1_proposals.images.decode import read_image
from stage1_proposals.images.listing import list_images
from stage1_proposals.jobs.request import Job, JobSettings, Recipe
from stage1_proposals.jobs.run import run as run_job
from stage1_proposals.shards import ClusterRecord, Manifest, ShardReader, ShardSet, write_clusters
from tests.pipelines.command import run_command


def run(*argv: object) -> int:
    return run_command("inspect", *argv)


def make_shards(images: Path, directory: Path) -> Path:
    settings = JobSettings(images_per_shard=5, short_side=64, long_side=128)
    job = Job(list_images(images), Recipe(build_generator({}), "lite0_imagenet", None, "cpu", settings=settings))
    run_job(job, directory, 0, lambda _: None)
    return directory


@pytest.fixture(scope="module")
def made(image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three shards of the small images. Not to be changed."""
    return make_shards(image_folder, tmp_path_factory.mktemp("made") / "shards")


@pytest.fixture
def shards(made: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of them."""
    return Path(shutil.copytree(made, tmp_path / "shards"))


def test_it_prints_counts_failures_and_distributions(shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--shards", shards) == 0
    out = capsys.readouterr().out
    proposals = ShardSet.open(shards).proposal_count
    assert f"3 shards verified, 12 images, {proposals} proposals" in out
    assert "made by saliency on lite0_imagenet, D = 320" in out
    assert "2 images failed:\n  0/empty.jpg: is empty (0 bytes)\n  1/text.jpg: is not an image" in out
    for name in ("masks per image", "area / image", "score"):
        assert f"\n{name}" in out


def test_the_contact_sheet_has_every_image_in_colours(shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--shards", shards) == 0
    assert "contact_sheet.png (12 images)" in capsys.readouterr().out
    sheet = np.asarray(Image.open(shards / "contact_sheet.png").convert("HSV"))
    assert sheet.shape[0] > sheet.shape[1] // 2
    pure = (sheet[..., 1] > 200) & (sheet[..., 2] > 250)  # outlines, in the palette's full colours
    assert len(np.unique(sheet[..., 0][pure] // 16)) > 3


def test_the_sheet_is_the_same_for_the_same_seed_alone(shards: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert run("--shards", shards, "--out", tmp_path / f"{name}.png", "--sheet", 4, "--seed", seed) == 0
    first, same, other = ((tmp_path / f"{name}.png").read_bytes() for name in "abc")
    assert first == same != other


def test_images_that_have_gone_are_left_out_of_the_sheet(
    made: Path, image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = Path(shutil.copytree(image_folder, tmp_path / "moved"))
    (moved / "0" / "0000.png").unlink()
    assert run("--shards", made, "--image-root", moved, "--out", tmp_path / "sheet.png") == 0
    out = capsys.readouterr().out
    assert "not drawn: 0/0000.png does not exist" in out
    assert "sheet.png (11 images)" in out


def test_an_image_of_another_size_than_its_masks_is_left_out_of_the_sheet(
    made: Path, image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = Path(shutil.copytree(image_folder, tmp_path / "changed"))
    width, height = Image.open(changed / "0" / "0000.png").size
    Image.new("RGB", (height + 1, width)).save(changed / "0" / "0000.png")
    assert run("--shards", made, "--image-root", changed, "--out", tmp_path / "sheet.png") == 0
    out = capsys.readouterr().out
    expected = f"is {height + 1} x {width} pixels now, but its masks are for {width} x {height}"
    assert f"\nnot drawn: 0/0000.png {expected}\n" in out
    assert "sheet.png (11 images)" in out


def test_scores_against_its_own_proposals_are_100(
    shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command("prelabel", "--shards", shards, "--format", "coco", "--out", tmp_path) == 0
    labels = json.loads((tmp_path / "coco.json").read_text())
    for image in labels["images"]:
        image["file_name"] = Path(image["file_name"]).name
    (tmp_path / "labels.json").write_text(json.dumps(labels))
    assert run("--shards", shards, "--labels", tmp_path / "labels.json", "--sheet", 0) == 0
    lines = capsys.readouterr().out.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("generator "))
    names = [f"{kind} {score}" for kind in ("mask", "box") for score in ("AP", "AP50", "AP75", "AR@20", "AR@100")]
    assert lines[start].endswith("  ".join(names))
    assert lines[start + 1].split()[-10:] == ["100.00"] * 10


def test_clusters_are_counted(shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--shards", shards, "--sheet", 0) == 0
    assert "\nclusters" not in capsys.readouterr().out
    first = ShardSet.open(shards).entries[0]
    write_clusters(shards / first.file, np.zeros(first.proposals, np.int32), ClusterRecord(2))
    assert run("--shards", shards, "--sheet", 0) == 0
    assert "\nclusters in 1 of 3 shards\n" in capsys.readouterr().out


def test_similar_proposals_are_printed_and_drawn_the_query_first(
    shards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--shards", shards, "--similar", "0:1", "--sheet", 4) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    assert last == f"similar proposals: {shards}/similar.png (4 tiles)"
    cosines = [float(line.split()[0]) for line in lines]
    assert cosines == sorted(cosines, reverse=True)
    assert lines[0].split()[1:] == ["0:1", "0/0000.png"]
    _, nearest = similar_proposals(ShardSet.open(shards), 0, 1, 3)
    assert cosines == pytest.approx([1, *(each.cosine for each in nearest)], abs=1e-4)
    sheet = np.asarray(Image.open(shards / "similar.png"))
    assert sheet.shape == (TILE + 2 * GAP, 4 * (TILE + GAP) + GAP, 3)
    record = ShardReader(ShardSet.open(shards).shard_paths[0]).read(0).only(1)
    image = read_image(Path(ShardSet.open(shards).image_root) / record.file_name)
    expected = np.asarray(draw_proposals(image, record.masks(), record.seed, TILE - CAPTION))
    left, top = GAP + (TILE - expected.shape[1]) // 2, GAP + (TILE - CAPTION - expected.shape[0]) // 2
    assert np.array_equal(sheet[top : top + expected.shape[0], left : left + expected.shape[1]], expected)


def test_a_similar_proposal_whose_image_has_gone_is_left_out_but_not_the_query(
    made: Path, image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = Path(shutil.copytree(image_folder, tmp_path / "moved"))
    arguments = ["--shards", made, "--image-root", moved, "--out", tmp_path / "a.png", "--sheet", 200]
    others = [path for path in moved.rglob("*.png") if path.name != "0000.png"]
    others[0].unlink()
    assert run(*arguments, "--similar", "0:0") == 0
    out = capsys.readouterr().out
    assert f"not drawn: {others[0].relative_to(moved)} does not exist" in out
    (moved / "0" / "0000.png").unlink()
    assert f"{moved}/0/0000.png does not exist; say where it is" in fails(capsys, *arguments, "--similar", "0:0")


@pytest.mark.parametrize("text", ["5", "a:0", "1:2:3", "1:"])
def test_a_proposal_is_named_by_image_and_row(shards: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    assert run("--shards", shards, "--similar", text) == 2
    assert capsys.readouterr().err == f"error: --similar '{text}': write it as IMAGE_ID:ROW, two integers\n"


def test_a_set_without_a_usable_image_is_inspected_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.jpg").touch()
    assert run("--shards", make_shards(tmp_path / "images", tmp_path / "shards")) == 0
    assert "0 images, 0 proposals" in capsys.readouterr().out


def fails(capsys: pytest.CaptureFixture[str], *argv: object) -> str:
    """The one line of a command that must end with 2."""
    assert run(*argv) == 2
    lines = [line for line in capsys.readouterr().err.replace("\r", "\n").splitlines() if "error:" in line]
    assert len(lines) == 1
    return lines[0]


def test_a_damaged_shard_is_named_and_2(shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = ShardSet.open(shards).shard_paths[1]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert f"1 of 3 shards are damaged: {path}: " in fails(capsys, "--shards", shards)


def test_a_shard_of_another_set_is_named(shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second, _ = ShardSet.open(shards).shard_paths
    shutil.copy(first, second)
    assert f"{second}: valid, but its hash differs from the manifest" in fails(capsys, "--shards", shards)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--similar", "77:0"], "has no image with id 77"),
        (["--similar", "0:99"], "proposals, none is number 99"),
        (["--out", "{tmp}/sheet.unknown"], "{tmp}/sheet.unknown: pictures are written as .png or .jpg"),
        (["--labels", "{tmp}/gone.json"], "labels {tmp}/gone.json: cannot be read (No such file or directory)"),
        (["--labels", "{tmp}/file"], "labels {tmp}/file: not JSON (Expecting value"),
        (
            ["--image-root", "{tmp}"],
            "no sampled image was found unchanged under {tmp}; pass their folder as --image-root",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_user_error_is_one_clear_line_and_2(
    shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    (tmp_path / "file").write_text("text")
    line = fails(capsys, "--shards", shards, *(option.replace("{tmp}", str(tmp_path)) for option in options))
    assert message.replace("{tmp}", str(tmp_path)) in line


def test_a_directory_without_shards_and_an_unfinished_set_are_refused(
    shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "gone: no shard set here" in fails(capsys, "--shards", tmp_path / "gone")
    Manifest(ShardSet.open(shards).request, None).write(shards)
    assert "unfinished, 3 of 3 shards" in fails(capsys, "--shards", shards)
