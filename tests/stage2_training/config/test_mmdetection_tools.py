"""MMDetection's own `tools/train.py` and `tools/test.py`, as it ships them, take composed configs as they are."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import mmdet
import numpy as np

from stage2_training.config.compose import finetuning_config, pretraining_config
from stage2_training.config.overrides import Overrides
from tests import tiny_knet

ROOT = Path(__file__).parents[3]
TOOLS = Path(mmdet.__file__).parent / ".mim" / "tools"


# Imports the libraries once; each tool then has a process of its own.
PROGRAM = """
import gc, json, os, runpy, sys
gc.disable()
import mmdet.apis, mmdet.datasets, mmdet.engine, mmdet.models, timm, torch.utils.tensorboard
gc.freeze()  # MMEngine collects garbage for every dataset
gc.enable()
for words in json.loads(sys.argv[1]):
    child = os.fork()
    if not child:
        sys.argv = words
        runpy.run_path(words[0], run_name="__main__")
        sys.exit()
    if os.waitpid(child, 0)[1]:
        sys.exit(f"{words} failed")
"""


def run_tools(*commands: tuple[object, ...]) -> None:
    """Run tools, given their names and arguments, in processes that know nothing of this project but the config."""
    words = [[str(TOOLS / str(name)), *map(str, arguments)] for name, *arguments in commands]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    program = [sys.executable, "-c", PROGRAM, json.dumps(words)]
    finished = subprocess.run(program, env=environment, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr[-3000:]


def test_composed_configs_run_in_mmdetections_tools(write_shards, make_record, rectangles, write_labels, tmp_path):
    features = np.random.default_rng(0).standard_normal((2, 8))
    records = [make_record(i, f"{i}.png", rectangles([(4, 4, 24, 30)], 48, 64), features[i : i + 1]) for i in range(2)]
    shards = write_shards([records], {"feature_dim": 8})
    common = {"epochs": 1, "total_batch": 2, "workers": 0, "image_size": 64, "cfg_options": tiny_knet.MODEL}
    config = pretraining_config("knet_lite0", "pretrain_demo", shards, overrides=Overrides(**common))
    config.dump(tmp_path / "pretrain.py")
    overrides = Overrides(data_root=str(write_labels(images=2)), **common)
    run = tiny_knet.untrained_run(tmp_path / "run", finetuning_config("knet_lite0", "demo", overrides=overrides))
    shutil.copy(run / "iter_1.pth", run / "initial.pth")  # what the config of a run names
    pre, fine = tmp_path / "pre", tmp_path / "fine"
    run_tools(
        ("train.py", tmp_path / "pretrain.py", "--work-dir", pre),
        ("train.py", run / "config.py", "--work-dir", fine),
        ("test.py", run / "config.py", fine / "iter_1.pth", "--work-dir", tmp_path / "test"),
    )
    assert (pre / "iter_1.pth").is_file()
    (scores,) = (tmp_path / "test").glob("*/*.json")
    assert 0 <= json.loads(scores.read_text())["coco/AP"] <= 1
