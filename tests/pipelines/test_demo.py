"""The whole job in miniature: the demo's own commands, real Ray, real HDF5, real trainer, real pycocotools."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from pipelines import demo
from stage1_proposals.shards import ShardSet, verify_shard
from stage2_training.evaluation.scores import AP_NAMES

ROOT = Path(__file__).resolve().parents[2]
# The command line, whose steps have processes of their own as ever, but libraries that are imported once for all.
PROGRAM = '''
import os, subprocess, sys, types
from pipelines import launch
from pipelines.__main__ import main
from stage1_proposals.common.system import configure_process

configure_process()
from stage2_training import quiet_imports
with quiet_imports():
    import mmdet.apis, timm, torch.utils.tensorboard

class Fork:
    """As `subprocess.Popen`, of a command of this project."""

    def __init__(self, words, env, stdout=None, stderr=None):
        assert words[:3] == [sys.executable, "-m", "pipelines"], words
        self.code, self.pid = None, os.fork()
        if self.pid == 0:
            if stdout is not None:
                assert stderr == subprocess.STDOUT
                os.dup2(stdout.fileno(), 1)
                os.dup2(stdout.fileno(), 2)
            launch.stop = lambda *processes, **how: None  # which this process has not started
            sys.exit(main(words[3:]))

    def wait(self, timeout=None):
        if self.code is None:
            self.code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.code

    def poll(self):
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.code = os.waitstatus_to_exitcode(status) if pid else None
        return self.code

    def send_signal(self, number):
        assert self.code is not None

    def kill(self):
        assert self.code is not None

launch.subprocess = types.SimpleNamespace(
    Popen=Fork, STDOUT=subprocess.STDOUT, TimeoutExpired=subprocess.TimeoutExpired
)
sys.exit(main())
'''


def test_a_miniature_of_the_demo(tmp_path):
    words = ["demo", "--count", "12", "4", "2", "--pretrain-epochs", "1", "--finetune-epochs", "1"]
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, *words],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    heading, _, *rows = [line for line in run.stdout.splitlines() if line.startswith("|")]
    assert heading == "| init | AP | AP50 | AP75 | AP_S | AP_M | AP_L |"
    assert [row.split()[1] for row in rows] == list(demo.INITS)
    finetunings = [f"work_dirs/demo/finetune-{init}" for init in demo.INITS]
    assert [run.stdout.count(f"Fine-tuned: {path}") for path in finetunings] == [1, 1]
    assert run.stderr == ""  # no progress bars where there is no terminal

    out = tmp_path / "work_dirs" / "demo"
    shards = ShardSet.open(out / "shards")
    assert shards.image_count == 12
    for entry, path in zip(shards.entries, shards.shard_paths, strict=True):
        assert verify_shard(path) == entry
    losses = [
        json.loads(line)["loss_rpn_mask"]
        for log in (out / "pretrain").glob("*/vis_data/scalars.json")
        for line in log.read_text().splitlines()
        if "loss_rpn_mask" in line
    ]
    assert losses
    assert np.isfinite(losses).all()
    taken = json.loads((out / "finetune-sp" / "transfer.json").read_text())["taken"]
    assert "rpn_head.init_kernels.weight" in taken
    for init in demo.INITS:
        result = json.loads((out / f"finetune-{init}" / "finished.json").read_text())
        assert all(-1 <= result[name] <= 1 for name in AP_NAMES)
        assert (out / f"finetune-{init}" / "config.py").is_file()
    for picture in ("contact_sheet.png", "learning_curves.png"):
        assert np.asarray(Image.open(out / picture)).std() > 0
