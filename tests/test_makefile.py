"""The Makefile: what its targets pass on, and `make help`."""

import os
import shlex
import subprocess
from pathlib import Path

import pytest

from pipelines.__main__ import COMMANDS

ROOT = Path(__file__).parents[1]
TARGETS = ("setup", "lock", "test", "lint", *COMMANDS)


def make(*words: str, **environment: str) -> str:
    """What make prints; a test run by make has make's own variables, which are left out."""
    clean = {"PATH": os.environ["PATH"], **environment}
    return subprocess.run(["make", *words], cwd=ROOT, env=clean, capture_output=True, text=True, check=True).stdout


def passed_on(*words: str, **environment: str) -> list[str]:
    """The words after `python -m pipelines` that a target runs."""
    last = make(*words, "--dry-run", **environment).replace("\\\n", " ").splitlines()[-1]
    return shlex.split(last)[3:]


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (["proposals"], "proposals"),
        (["proposals", "IMAGES=my images", "OPTS=--set a=1 b=2"], "proposals --images 'my images' --set a=1 b=2"),
        (["finetune", "DATASET=ctw1500", "ROOT=data"], "finetune --dataset ctw1500 --data-root data"),
        (["pretrain", "WEIGHTS=w.pth", "WORK_DIR=w"], "pretrain --weights w.pth --work-dir w"),
        (["evaluate", "WORK_DIR=w"], "evaluate --work-dir w"),
        (["recall", "LABELS=l.json", "SHARDS=a b"], "recall --labels l.json --shards a b"),
        (["draw", "RUNS=a=x b=y,z", "OUT=c.png", "DEVICE=cpu"], "draw curves a=x b=y,z --out c.png"),
        (["draw", "PICTURE=results", "WORK_DIR=w", "DEVICE=cpu"], "draw results --work-dir w --device cpu"),
        (["table", "N=5", "SEEDS=0 1 2"], "table 5 --seeds 0 1 2"),
        (["figure", "N=4", "SCALE=paper"], "figure 4 --scale paper"),
        (["bench", "PART=training", "MODEL=knet", "IMAGES=x"], "bench training --model knet"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_variable_is_passed_only_when_given(words: list[str], command: str) -> None:
    assert passed_on(*words) == shlex.split(command)


def test_a_variable_may_come_from_the_environment() -> None:
    assert passed_on("inspect", SHARDS="other") == ["inspect", "--shards", "other"]


def test_help_lists_every_target_and_variable() -> None:
    printed = make("help").splitlines()
    assert all(any(line.startswith(f"  make {target} ") for line in printed) for target in TARGETS)
    variables = (
        "IMAGES SHARDS BACKBONE WEIGHTS GENERATOR WORKERS DEVICE MODEL DATASET INIT CHECKPOINT WORK_DIR ROOT OPTS"
    )
    assert all(any(line.startswith(f"  {name} ") for line in printed) for name in variables.split())
    assert max(map(len, printed)) <= 120
