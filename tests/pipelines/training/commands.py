"""What the training commands are given in tests."""

import os
from pathlib import Path

from stage1_proposals.shards import ShardSet
from tests import tiny_knet

SMALL = (*tiny_knet.MODEL, *tiny_knet.TRAINING_IMAGES, "default_hooks.checkpoint.interval=2")


def pretrain_arguments(shards: ShardSet, work_dir: Path, *more: str) -> list[object]:
    common = ["--model", "knet_lite0", "--schedule", "pretrain_demo", "--shards", shards.directory, "--device", "cpu"]
    return [*common, "--work-dir", work_dir, "--total-batch", 2, "--workers", 0, *more, "--cfg-options", *SMALL]


def finetune_arguments(dataset: Path, work_dir: Path, *more: object) -> list[object]:
    common = ["--model", "knet_lite0", "--schedule", "finetune_demo", "--dataset", dataset, "--device", "cpu"]
    small = (*SMALL, *tiny_knet.TEST_IMAGES)
    return [*common, "--work-dir", work_dir, "--total-batch", 2, "--workers", 0, *more, "--cfg-options", *small]


class Evil:
    """Makes a directory when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)
