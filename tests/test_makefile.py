"""The Makefile: what its targets pass on, and `make help`."""

import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import click
import pytest

from pipelines.__main__ import COMMANDS, application

ROOT = Path(__file__).parents[1]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = ("setup", "lock", "test", "lint", *COMMANDS)
OPTIONS = dict(re.findall(r"^option\.(\w+) := ([\w-]+)", MAKEFILE, flags=re.MULTILINE))
# Commands of several commands, and the variable that names one.
GROUPS = {"draw": "PICTURE", "bench": "PART", "table": "N", "figure": "N"}


def command_of(name: str) -> Any:
    return application.get_command(click.Context(application), name)


def variables_of(name: str, kind: str = "takes") -> list[str]:
    """The variables that the Makefile says a target, or (`of`) a picture or benchmark, takes."""
    (line,) = re.findall(rf"^{kind}\.{name} :=(.*?)(?:##|$)", MAKEFILE, flags=re.MULTILINE)
    return line.split()


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
        (["pretrain", "BACKBONE=scratch", "WORKERS=0"], "pretrain --backbone scratch --workers 0"),
        (["finetune", "WORKERS=0"], "finetune --workers 0"),
        (["evaluate", "WORK_DIR=w"], "evaluate --work-dir w"),
        (["recall", "LABELS=l.json", "SHARDS=a b"], "recall --labels l.json --shards a b"),
        (["draw", "RUNS=a=x b=y,z", "OUT=c.png", "PICTURE=curves"], "draw curves a=x b=y,z --out c.png"),
        (["draw", "PICTURE=results", "WORK_DIR=w", "DEVICE=cpu"], "draw results --work-dir w --device cpu"),
        (["prelabel", "FORMAT=coco,yolo", "SCORE=0.5"], "prelabel --format coco,yolo --score 0.5"),
        (["select", "SHARDS=s"], "select --shards s"),
        (["select", "N=30", "LABELS=my labels", "WORK_DIR=w"], "select --count 30 --labels 'my labels' --work-dir w"),
        (["table", "N=5", "SEEDS=0 1 2"], "table 5 --seeds 0 1 2"),
        (
            ["table", "N=proposals", "IMAGES=i", "LABELS=l.json", "GENERATOR=merging saliency,component=seed"],
            "table proposals --images i --labels l.json --generator merging saliency,component=seed",
        ),
        (["table", "N=labels", "MODEL=a b", "SHARDS=s", "ROOT=r"], "table labels --data-root r --shards s --model a b"),
        (["figure", "N=4", "SCALE=paper"], "figure 4 --scale paper"),
        (["bench", "PART=training", "MODEL=knet"], "bench training --model knet"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_variable_is_passed_only_when_given(words: list[str], command: str) -> None:
    assert passed_on(*words) == shlex.split(command)


def test_a_variable_may_come_from_the_environment() -> None:
    assert passed_on("inspect", SHARDS="other") == ["inspect", "--shards", "other"]


@pytest.mark.parametrize("command", [name for name in COMMANDS if name not in GROUPS])
def test_a_target_takes_every_variable_that_its_command_has_an_option_for(command: str) -> None:
    options = {word for parameter in command_of(command).params for word in parameter.opts}
    variables = {name for name, option in OPTIONS.items() if option in options}
    if command != "cluster":
        variables -= {"CLASSES"}  # of datasets, names; the variable is a number
    assert set(variables_of(command)) & set(OPTIONS) == variables
    passed = passed_on(command, *(f"{name}=3" for name in sorted(variables)))
    assert {OPTIONS[name] for name in variables} <= set(passed)


@pytest.mark.parametrize(
    ("group", "variable", "name"),
    [(group, variable, name) for group, variable in GROUPS.items() for name in command_of(group).commands],
)
def test_so_does_a_target_of_a_group(group: str, variable: str, name: str) -> None:
    options = {word for parameter in command_of(group).commands[name].params for word in parameter.opts}
    variables = {name for name, option in OPTIONS.items() if option in options} - {"CLASSES"}
    table = {"6": "boxes", "proposals": "comparison", "labels": "labels"}.get(name, "table")
    kind = table if group == "table" else name
    taken = variables_of(group) if group == "figure" else variables_of(kind, "of")
    assert set(taken) & set(OPTIONS) == variables
    passed = passed_on(group, f"{variable}={name}", *(f"{name}=3" for name in sorted(variables)))
    assert {OPTIONS[name] for name in variables} <= set(passed)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["demo", "DEVICE=cpu"], "DEVICE: not of `make demo`, whose variables are: OPTS WORK_DIR."),
        (["cluster", "SHARD=a"], "SHARD: not of `make cluster`, whose variables are: OPTS SHARDS CLASSES."),
        (["bench", "PART=streaming", "MODEL=knet"], "MODEL: not of `make bench`, whose variables are: OPTS PART."),
        (["lint", "OPTS=x"], "OPTS: not of `make lint`, whose variables are: none."),
        (["draw", "PICTURE=results", "RUNS=a"], "RUNS: not of `make draw`"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_variable_that_the_target_does_not_take_is_refused(words: list[str], message: str) -> None:
    ended = subprocess.run(
        ["make", *words, "--dry-run"], cwd=ROOT, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True
    )
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert message in line


def test_help_lists_every_target_and_variable() -> None:
    printed = make("help").splitlines()
    assert all(any(line.startswith(f"  make {target} ") for line in printed) for target in TARGETS)
    variables = (
        "IMAGES SHARDS BACKBONE WEIGHTS GENERATOR WORKERS DEVICE MODEL DATASET INIT CHECKPOINT WORK_DIR ROOT OPTS"
    )
    assert all(any(line.startswith(f"  {name} ") for line in printed) for name in variables.split())
    assert max(map(len, printed)) <= 120
