"""A tiny K-Net's shards and labels, and the training commands in this process."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from stage1_proposals.backbones.weights import locate_weights
from stage1_proposals.common.files import file_sha256
from stage1_proposals.shards import ShardSet
from tests.pipelines.command import run_command


@pytest.fixture
def shards(write_shards, make_record, rectangles) -> ShardSet:
    """Five images in two shards with 0, 1, 2, 0 and 1 masks."""
    rng = np.random.default_rng(0)
    records = []
    for image in range(5):
        masks = rectangles([(8 * m, 4, 8 * m + 20, 30) for m in range(image % 3)], 48, 64)
        records.append(make_record(image + 1, f"{image}.png", masks, rng.standard_normal((len(masks), 320))))
    backbone = {"feature_dim": 320, "sha256": file_sha256(locate_weights("lite0_imagenet"))}
    return write_shards([records[:3], records[3:]], backbone)


@pytest.fixture
def dataset(write_labels, tmp_path) -> Path:
    """A dataset fragment of four labelled images."""
    root = write_labels()
    loader = "dict(dataset=dict(type='CocoDataset', data_root={root!r}, ann_file='annotations/{split}.json', {rest}))"
    common = "data_prefix=dict(img=''), metainfo=dict(classes=('text',)),"
    (tmp_path / "tiny.py").write_text(
        "train_cfg = dict(max_epochs=2)\n"
        f"train_dataloader = {loader.format(root=str(root), split='train', rest=common)}\n"
        f"val_dataloader = {loader.format(root=str(root), split='test', rest=common + ' test_mode=True')}\n"
        "val_evaluator = dict(type='MaskAP')\n"
    )
    return tmp_path / "tiny.py"


@pytest.fixture
def command(tmp_path, capfd) -> Callable[..., tuple[int, str]]:
    """Run a command in this process: its exit code, and what it printed."""

    def run(*words: object) -> tuple[int, str]:
        capfd.readouterr()
        code = run_command(*words)
        printed = capfd.readouterr()
        return code, printed.out + printed.err

    return run
