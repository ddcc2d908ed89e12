"""MMDetection's own `tools/train.py` and `tools/test.py`, as it ships them, take composed configs as they are."""

import json
import os
import subprocess
import sys
from pathlib import Path

import mmdet
import numpy as np
import torch
from mmengine.config import Config

from stage2_training.config.compose import finetuning_config, pretraining_config
from stage2_training.config.overrides import Overrides
from stage2_training.runs.train import initial_model
from tests import tiny_knet

ROOT = Path(__file__).parents[3]
TOOLS = Path(mmdet.__file__).parent / ".mim" / "tools"


def run_tool(name: str, *arguments: object) -> None:
    """Run a tool in a process of its own, which knows nothing of this project but the config."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(TOOLS / name), *map(str, arguments)]
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr[-3000:]


def written(config: Config, path: Path) -> Path:
    config.dump(path)
    return path


def test_composed_configs_run_in_mmdetections_tools(write_shards, make_record, rectangles, write_labels, tmp_path):
    features = np.random.default_rng(0).standard_normal((2, 8))
    records = [make_record(i, f"{i}.png", rectangles([(4, 4, 24, 30)], 48, 64), features[i : i + 1]) for i in range(2)]
    shards = write_shards([records], {"feature_dim": 8})
    common = {"epochs": 1, "total_batch": 2, "workers": 0, "image_size": 64, "cfg_options": tiny_knet.MODEL}
    config = pretraining_config("knet_lite0", "pretrain_demo", shards, overrides=Overrides(**common))
    run_tool("train.py", written(config, tmp_path / "pretrain.py"), "--work-dir", tmp_path / "pre")
    assert (tmp_path / "pre" / "iter_1.pth").is_file()

    overrides = Overrides(data_root=str(write_labels(images=2)), **common)
    config = finetuning_config("knet_lite0", "demo", overrides=overrides)
    checkpoint = tmp_path / "untrained.pth"
    torch.save({"state_dict": initial_model(config)}, checkpoint)
    run_tool("test.py", written(config, tmp_path / "finetune.py"), checkpoint, "--work-dir", tmp_path / "test")
    (scores,) = (tmp_path / "test").glob("*/*.json")
    assert 0 <= json.loads(scores.read_text())["coco/AP"] <= 1
