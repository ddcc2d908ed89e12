"""The command: settings, user errors, summary."""

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from pipelines import cli
from pipelines.proposals import DEFAULT_CONFIG, build_parser, choose_device, main, read_settings
from stage1_proposals.errors import UserError
from stage1_proposals.generators import SaliencyGenerator, build_generator
from stage1_proposals.images import list_photos
from stage1_proposals.runner import Job
from stage1_proposals.shards import ShardSet, write_manifest

SMALL = ("--workers", "0", "--short-side", "64", "--images-per-shard", "8")


@pytest.fixture(autouse=True)
def all_threads() -> Iterator[None]:
    """A run in this process sets torch to one thread; afterwards it has its threads back."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def run(*argv: object) -> int:
    return cli.run(main, build_parser(), [str(part) for part in argv])


def test_photos_in_shards_out(photo_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--images", photo_folder, "--shards", tmp_path / "shards", *SMALL) == 0
    shards = ShardSet.open(tmp_path / "shards")
    assert shards.image_counts == [7, 5]
    assert shards.request["generator"]["long_side"] == 107  # the config's proportions: 64 x 1333 / 800
    out = capsys.readouterr().out
    proposals = sum(row["proposals"] for row in shards.shards)
    assert f"2 shards, 12 photos, {proposals} proposals, 2 photos failed" in out
    assert "failed: 0/empty.jpg: is empty (0 bytes)" in out
    assert "failed: 1/text.jpg: is not an image Pillow can read" in out


def test_a_long_list_of_failures_is_cut(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "photos").mkdir()
    for number in range(23):
        (tmp_path / "photos" / f"{number}.jpg").touch()
    assert run("--images", tmp_path / "photos", "--shards", tmp_path / "shards", *SMALL) == 0
    out = capsys.readouterr().out
    assert "0 photos, 0 proposals, 23 photos failed" in out
    assert out.count("  failed: ") == 20
    assert "and 3 more" in out


def test_a_file_name_that_is_not_utf8_is_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / os.fsdecode(b"\xff.jpg")).touch()
    with open(tmp_path / "out", "w", encoding="utf-8", errors="strict") as out:
        monkeypatch.setattr(sys, "stdout", out)
        assert run("--images", tmp_path / "photos", "--shards", tmp_path / "shards", *SMALL) == 0
    assert "failed: \\udcff.jpg: is empty" in (tmp_path / "out").read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--images", "{tmp}/gone"], "photo folder {tmp}/gone: no such folder"),
        (["--images", "{tmp}/empty"], "photo folder {tmp}/empty: no photos in it"),
        (["--weights", "{tmp}/gone.pth"], "backbone weights {tmp}/gone.pth: no such file"),
        (["--weights", "{tmp}/text"], "{tmp}/text: not a PyTorch checkpoint"),
        (["--weights", "{tmp}/small.pth"], "{tmp}/small.pth: does not fit lite0_imagenet"),
        (["--backbone", "densecl_r50", "--weights", "{tmp}/small.pth"], "{tmp}/small.pth: does not fit densecl_r50"),
        (["--device", "tpu"], "device 'tpu': use cpu or cuda"),
        (["--config", "{tmp}/gone.toml"], "config {tmp}/gone.toml: cannot be read"),
        (["--config", "{tmp}/text"], "config {tmp}/text: "),
        (["--config", "{tmp}/unknown.toml"], "unknown settings stride"),
        (["--config", "{tmp}/short.toml"], "short.toml: lacks batch_size, long_side"),
        (["--config", "{tmp}/table.toml"], "[generator] must be a table"),
        (["--set", "treshold=0.5"], "generator saliency has no setting treshold; it has"),
        (["--set", "threshold"], "--set threshold: write KEY=VALUE"),
        (["--set", "threshold=high"], "threshold 'high': must be a number in [0, 1]"),
        (["--set", "name=magic"], "no generator 'magic'"),
        (["--config", "{tmp}/zero.toml", "--long-side", "64"], "batch_size must be a positive whole number, not 0"),
        (["--shards", "{tmp}/text"], "{tmp}/text: cannot be written"),
        (
            ["--shards", "{tmp}/other"],
            "{tmp}/other holds other work: image_count is 3 there, 14 asked for. Choose another",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_user_error_is_one_clear_line_and_2(
    photo_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").write_text("some text\n")
    torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7)}, tmp_path / "small.pth")
    (tmp_path / "unknown.toml").write_text("stride = 32")
    (tmp_path / "short.toml").write_text("images_per_shard = 8")
    (tmp_path / "zero.toml").write_text("images_per_shard = 8\nbatch_size = 0")
    (tmp_path / "table.toml").write_text("generator = 3")
    (tmp_path / "other").mkdir()
    photos = list_photos(photo_folder)
    job = Job(photos, SaliencyGenerator(), "lite0_imagenet", None, 64, 107, 8, 8, "cpu")
    write_manifest(tmp_path / "other", {**job.request(), "image_count": 3}, None)
    given = ["--images", str(photo_folder), "--shards", str(tmp_path / "shards"), *SMALL]
    assert run(*given, *(option.replace("{tmp}", str(tmp_path)) for option in options)) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message.replace("{tmp}", str(tmp_path)) in error
    assert error.count("\n") == 1
    assert not (tmp_path / "shards").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused() -> None:
    with pytest.raises(UserError, match="no usable GPU"):
        choose_device("cuda")
    assert choose_device(None) == "cpu"


def test_set_values_are_toml_or_bare_words() -> None:
    overrides = ["threshold=0.6", "nms=matrix", "seed_grid=[3, 4]", 'similarity="dot"']
    generator = read_settings(DEFAULT_CONFIG, overrides)["generator"]
    assert (generator["threshold"], generator["nms"]) == (0.6, "matrix")
    assert (generator["seed_grid"], generator["similarity"]) == ([3, 4], "dot")
    assert generator["max_proposals"] == 20


def test_the_default_config_states_the_generators_defaults() -> None:
    settings = read_settings(DEFAULT_CONFIG, [])
    assert build_generator(settings["generator"]) == SaliencyGenerator()
    assert (settings["short_side"], settings["long_side"]) == (800, 1333)


def test_an_unknown_backbone_is_refused_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        build_parser().parse_args(["--images", "a", "--shards", "b", "--backbone", "vgg"])
    assert exit_.value.code == 2
    assert "densecl_r50" in capsys.readouterr().err


def test_nothing_but_images_and_shards_must_be_given() -> None:
    args = build_parser().parse_args(["--images", "a", "--shards", "b"])
    assert isinstance(args, argparse.Namespace)
    assert (args.backbone, args.workers, args.device, args.set) == ("lite0_imagenet", None, None, [])
