"""The command: settings, user errors, summary."""

import json
import os
import shutil
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from stage1_proposals.backbones.extractor import fastest_precision
from stage1_proposals.backbones.weights import new_network
from stage1_proposals.common.errors import UserError
from stage1_proposals.common.files import file_sha256
from stage1_proposals.common.system import choose_device
from stage1_proposals.generators.saliency import SaliencyGenerator
from stage1_proposals.images.listing import list_images
from stage1_proposals.jobs.request import Job, JobSettings, Recipe
from stage1_proposals.shards import BackboneRecord, Manifest, ShardReader, ShardSet
from tests.pipelines.command import parse, run_command

SMALL = ("--workers", "0", "--short-side", "64", "--images-per-shard", "8")


def run(*argv: object) -> int:
    return run_command("proposals", *argv)


def test_images_in_shards_out(image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--images", image_folder, "--shards", tmp_path / "shards", *SMALL) == 0
    shards = ShardSet.open(tmp_path / "shards")
    assert shards.image_counts == [7, 5]
    assert shards.request.generator["long_side"] == 107  # the config's proportions: 64 x 1333 / 800
    out = capsys.readouterr().out
    proposals = shards.proposal_count
    assert f"2 shards, 12 images, {proposals} proposals, 2 images failed" in out
    assert "failed: '0/empty.jpg': is empty (0 bytes)" in out
    assert "failed: '1/text.jpg': is not an image Pillow can read" in out


def test_a_vit_of_timms_from_a_file(image_folder: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    safetensors.torch.save_file(new_network("test_vit").state_dict(), tmp_path / "w.safetensors")
    given = ("--images", image_folder, "--shards", tmp_path / "shards", *SMALL)
    assert run(*given, "--backbone", "test_vit", "--weights", tmp_path / "w.safetensors") == 0
    shards = ShardSet.open(tmp_path / "shards")
    assert shards.proposal_count > 0
    weights = tmp_path / "w.safetensors"
    assert shards.backbone == BackboneRecord("test_vit", str(weights), file_sha256(weights), stride=16, feature_dim=64)
    assert ShardReader(shards.shard_paths[0]).read(0).feature.shape[1] == 64


def test_small_objects_are_looked_for_at_full_size_in_tiles(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = tmp_path / "images"
    images.mkdir()
    pixels = np.random.default_rng(0).integers(0, 60, (192, 256, 3)).astype(np.uint8)
    for row, column in product(range(24, 192, 48), range(24, 256, 48)):
        pixels[row - 12 : row + 12, column - 12 : column + 12] = 220
    Image.fromarray(pixels).save(images / "cells.png")
    small = ("--objects", "small", "--images-per-shard", "8", "--workers", "0", "--short-side", "64")
    assert run("--images", images, "--shards", tmp_path / "shards", *small) == 0
    line = "--objects small: the backbone computes 0.049 megapixels of an image, 8.0 times as many as without it"
    assert line in capsys.readouterr().out
    shards = ShardSet.open(tmp_path / "shards")
    parameters = {"name": "merging", "full_size": True, "tile": 1024, "max_proposals": 100, "short_side": 64}
    assert parameters.items() <= shards.request.generator.items()
    assert ShardReader(shards.shard_paths[0]).read(0).area.min() < 40**2
    assert run("--images", images, "--shards", tmp_path / "shards", *small[2:], "--generator", "merging") == 2
    assert "full_size was True, requested None" in capsys.readouterr().err


def test_a_json_gives_images_and_ids(image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["1/0001.png", "0/0000.png", "0/gone.png"]
    images = [{"id": 70 + number, "file_name": name} for number, name in enumerate(names)]
    (tmp_path / "images.json").write_text(json.dumps({"images": images}))
    given = ("--images", tmp_path / "images.json", "--image-root", image_folder, "--shards", tmp_path / "shards")
    assert run(*given, *SMALL) == 0
    out = capsys.readouterr().out
    assert f"3 images from {tmp_path}/images.json, under {image_folder.resolve()}, -> 1 shards" in out
    assert "failed: '0/gone.png': does not exist" in out
    reader = ShardReader(ShardSet.open(tmp_path / "shards").shard_paths[0])
    assert [(record.image_id, record.file_name) for record in map(reader.read, range(2))] == [
        (71, "0/0000.png"),
        (70, "1/0001.png"),
    ]


def test_images_and_shards_in_one_folder_go_on_after_inspect(image_folder: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(image_folder, tmp_path / "all"))
    given = ("--images", root, "--shards", root / "shards", *SMALL)
    assert run(*given) == 0
    assert run_command("inspect", "--shards", root / "shards") == 0
    assert (root / "shards" / "contact_sheet.png").exists()
    assert run(*given) == 0


def test_shards_go_to_a_url_and_are_fetched_from_it(
    image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url, directory = f"file://{tmp_path}/bucket/shards", tmp_path / "shards"
    assert run("--images", image_folder, "--shards", url, *SMALL) == 0
    out = capsys.readouterr().out
    assert f"14 images from {image_folder} -> 2 shards in {url}\n{url}: 2 shards, 12 images, " in out
    assert "failed: '0/empty.jpg': is empty (0 bytes)" in out
    assert run_command("fetch", "--shards", url, "--to", directory) == 0
    assert f"{url} -> {directory}: 2 shards verified, 12 images" in capsys.readouterr().out
    assert ShardSet.open(directory).image_counts == [7, 5]
    assert run_command("inspect", "--shards", directory) == 0


def test_a_long_list_of_failures_is_cut(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "images").mkdir()
    for number in range(23):
        (tmp_path / "images" / f"{number}.jpg").touch()
    assert run("--images", tmp_path / "images", "--shards", tmp_path / "shards", *SMALL) == 0
    out = capsys.readouterr().out
    assert "0 images, 0 proposals, 23 images failed" in out
    assert out.count("  failed: ") == 20
    assert "and 3 more" in out


def test_an_image_put_right_is_read_when_asked_for(
    image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = Path(shutil.copytree(image_folder, tmp_path / "images"))
    given = ("--images", images, "--shards", tmp_path / "shards", *SMALL)
    assert run(*given) == 0
    assert "12 images" in (out := capsys.readouterr().out)
    assert "run again with OPTS=--retry-failed" in out
    shutil.copy(images / "0" / "0000.png", images / "0" / "empty.jpg")
    assert run(*given) == 0
    assert "12 images" in capsys.readouterr().out
    assert run(*given, "--retry-failed") == 0
    assert "13 images" in (out := capsys.readouterr().out)
    assert "1 images failed\n  failed: '1/text.jpg'" in out


def test_any_file_name_is_printed_on_one_line_of_plain_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "images").mkdir()
    for name in (os.fsdecode(b"\xff.jpg"), "a\n.jpg", "\x1b[31m.jpg", "\u202egpj.jpg", "תמונה.jpg"):
        (tmp_path / "images" / name).touch()
    with open(tmp_path / "out", "w", encoding="utf-8", errors="strict") as out:
        monkeypatch.setattr(sys, "stdout", out)
        assert run("--images", tmp_path / "images", "--shards", tmp_path / "shards", *SMALL) == 0
    printed = (tmp_path / "out").read_text(encoding="utf-8")
    for name in ("\\udcff.jpg", "a\\n.jpg", "\\x1b[31m.jpg", "\\u202egpj.jpg", "תמונה.jpg"):
        assert f"  failed: '{name}': is empty (0 bytes)\n" in printed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--images", "{tmp}/gone"], "image folder {tmp}/gone: no such folder"),
        (["--images", "{tmp}", "--shards", "{tmp}"], "image folder {tmp}: the shards cannot lie among the images"),
        (["--shards", "nowhere://bucket"], "nowhere://bucket: cannot be used (Protocol not known: nowhere)"),
        (["--images", "{tmp}/empty"], "image folder {tmp}/empty: no images in it"),
        (["--backbone", "vgg"], "no backbone 'vgg'; there are lite0_imagenet, dinov2_s, densecl_r50"),
        (
            ["--backbone", "test_vit"],
            "get https://huggingface.co/timm/test_vit.r160_in1k/resolve/main/model.safetensors",
        ),
        (["--backbone", "test_vit", "--weights", "{tmp}/small.pth"], "it does not fit test_vit"),
        (["--backbone", "test_maxvit", "--weights", "{tmp}/small.pth"], "backbone test_maxvit cannot be used: "),
        (["--images", "{tmp}/tricks.txt"], "{tmp}/tricks.txt: line 1 contains `..` ('../a.jpg')"),
        (["--images", "{tmp}/images.json"], "images.json: none of its 1 images is under {tmp} or "),
        (["--images", "{tmp}/images.json", "--image-root", "{tmp}/gone"], "image root {tmp}/gone: no such folder"),
        (["--weights", "{tmp}/gone.pth"], "backbone weights {tmp}/gone.pth: no such file"),
        (["--weights", "{tmp}/text"], "{tmp}/text: damaged or not a PyTorch checkpoint"),
        (["--weights", "{tmp}/small.pth"], "it does not fit lite0_imagenet"),
        (["--backbone", "densecl_r50", "--weights", "{tmp}/small.pth"], "it does not fit densecl_r50"),
        (["--device", "tpu"], "Invalid value for '--device': 'tpu' is not one of 'cpu', 'cuda'"),
        (["--config", "{tmp}/gone.toml"], "config {tmp}/gone.toml: cannot be read"),
        (["--config", "{tmp}/text"], "config {tmp}/text: "),
        (["--config", "{tmp}/unknown.toml"], "has no setting stride; it has batch_size"),
        (["--config", "{tmp}/table.toml"], "[generator] must be a table"),
        (["--set", "treshold=0.5"], "generator saliency has no setting treshold; it has"),
        (["--set", "threshold"], "--set threshold: write KEY=VALUE"),
        (["--set", "threshold=high"], "threshold 'high': must be a number"),
        (["--set", "name=magic"], "no generator 'magic'"),
        (["--config", "{tmp}/zero.toml", "--long-side", "64"], "zero.toml: batch_size 0: must be greater than 0"),
        (
            ["--checkpoint", "{tmp}"],
            "--checkpoint (CHECKPOINT=) goes with --generator checkpoint, not saliency; it names the trained model",
        ),
        (["--generator", "merging", "--checkpoint", "{tmp}"], "goes with --generator checkpoint, not merging; "),
        (["--generator", "checkpoint"], "needs a trained model: --checkpoint (CHECKPOINT=) names the work directory"),
        (["--generator", "checkpoint", "--checkpoint", "{tmp}/gone"], "{tmp}/gone: no such checkpoint"),
        (["--generator", "checkpoint", "--checkpoint", "{tmp}"], "{tmp}: no run here (no config.py)"),
        (["--generator", "checkpoint", "--checkpoint", "{tmp}/small.pth"], "small.pth: there is no config.py beside"),
        (["--shards", "{tmp}/text"], "{tmp}/text: cannot be written"),
        (
            ["--shards", "{tmp}/other"],
            "{tmp}/other was made with other settings: image_count was 3, requested 14. Choose another",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_user_error_is_one_clear_line_and_2(
    image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").write_text("some text\n")
    (tmp_path / "tricks.txt").write_text("../a.jpg\n")
    (tmp_path / "images.json").write_text('{"images": [{"id": 1, "file_name": "a.jpg"}]}')
    torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7)}, tmp_path / "small.pth")
    (tmp_path / "unknown.toml").write_text("stride = 32")
    (tmp_path / "zero.toml").write_text("images_per_shard = 8\nbatch_size = 0")
    (tmp_path / "table.toml").write_text("generator = 3")
    (tmp_path / "other").mkdir()
    images = list_images(image_folder)
    settings = JobSettings(images_per_shard=8, short_side=64, long_side=107)
    job = Job(images, Recipe(SaliencyGenerator(), "lite0_imagenet", None, "cpu", settings=settings))
    Manifest(replace(job.request(), image_count=3), None).write(tmp_path / "other")
    given = ["--images", str(image_folder), "--shards", str(tmp_path / "shards"), *SMALL]
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
    assert choose_device("cuda", on_cluster=True) == "cuda"
    assert choose_device(None, on_cluster=True) == "cpu"
    assert [fastest_precision(device) for device in ("cpu", "cuda")] == ["float32", "bfloat16"]


def test_nothing_but_images_and_shards_must_be_given() -> None:
    settings = parse("proposals", "--images", "a", "--shards", "b")
    assert (settings["images"], settings["shards"]) == (Path("a"), "b")
    assert (settings["backbone"], settings["workers"], settings["device"]) == ("lite0_imagenet", None, None)
    assert settings["changes"] == ()
