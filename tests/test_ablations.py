"""docs/ablations.md: every command is one that `make` makes, parses, and composes the config that the page says."""

import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from stage1_proposals.shards import ShardSet
from stage2_training.config import compose
from stage2_training.config.overrides import Overrides
from stage2_training.runs import initial_weights as initialisation
from stage2_training.runs.init_options import BACKBONES, DETECTORS
from stage2_training.runs.work_dir import flatten
from tests.pipelines.command import parse

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "ablations.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in line[1:-1].split("|")]
    for line in PAGE.splitlines()
    if line.startswith("|") and "`make pretrain MODEL" in line
]
OTHERS = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, flags=re.DOTALL) for line in block.splitlines()]


def typed_by_make(command: str) -> tuple[str, list[str]]:
    """The command and its options that make would run for a command of the page."""
    environment = {"PATH": os.environ["PATH"]}  # a test run by make has make's own variables
    run = subprocess.run(
        [*shlex.split(command), "--dry-run"], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    last = run.stdout.replace("\\\n", " ").splitlines()[-1]
    _, option, package, name, *words = shlex.split(last)
    assert (option, package) == ("-m", "pipelines")
    return name, words


@pytest.fixture
def shards(write_shards, make_record, rectangles) -> ShardSet:
    record = make_record(1, "1.png", rectangles([(0, 0, 8, 8)], 16, 16), [[1, 2, 3, 4]])
    return write_shards([[record]], images=False)


def test_the_page_has_the_papers_rows() -> None:
    numbers = {row[3] for row in ROWS}
    assert numbers == {"23.5", "23.1", "23.0", "21.3", "21.7", "10.0", "0.8", "24.0", "23.3", ""}


def test_no_two_runs_share_a_work_directory() -> None:
    for command in ("pretrain", "finetune"):
        lines = [row[2].strip("`") for row in ROWS] if command == "pretrain" else OTHERS
        found = [where for line in lines if f"make {command}" in line for where in default_or_given(line)]
        assert len(found) == len(set(found)) > 2


def default_or_given(command: str) -> Iterator[str]:
    words = dict(word.split("=", 1) for word in shlex.split(command)[2:])
    if "WORK_DIR" in words:
        yield words["WORK_DIR"]
    elif "INIT" in words:
        yield f"{words['MODEL']}-{words['INIT']}"
    else:
        yield str(initialisation.pretraining_dir(words["MODEL"], words.get("PROMPTS") != "off"))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_a_row_changes_what_it_says_and_nothing_else(row: list[str], shards: ShardSet) -> None:
    _, changes, command, _ = row
    name, words = typed_by_make(command.strip("`"))
    assert name == "pretrain"
    options = parse(name, *words)
    directory = options["shards"]
    config = compose.pretraining_config(
        options["model"],
        options["schedule"] or "pretrain",
        shards,
        prompts=options["prompts"] == "on",
        saliency_prompt=compose.parse_saliency_prompt(options["saliency_prompt"]),
        pseudo_classes=options["pseudo_classes"],
        overrides=Overrides(**{name: options[name] for name in Overrides.model_fields if name in options}),
    )
    method = dict(flatten(compose.pretraining_config("knet", "pretrain", shards, overrides=SEED).to_dict()))
    found = dict(flatten(config.to_dict()))
    said = re.findall(r"`([^`]*)`", changes)
    assert ("other shards" in changes) == (str(directory) != "shards-densecl")
    if said == ["PROMPTS=off"]:
        assert found.pop("model.type") == "KNet"
        method = {key: value for key, value in method.items() if not key.startswith("model.saliency_prompt.")}
        del method["model.type"]
    else:
        changed = {key: value for key, value in found.items() if value != method[key]}
        assert changed == {
            f"model.saliency_prompt.{name}": value for name, value in compose.parse_saliency_prompt(said).items()
        }
    assert found.keys() == method.keys()


SEED = Overrides(seed=0)  # as the command's default


@pytest.mark.parametrize("command", OTHERS)
def test_every_other_command_parses_and_composes(command: str) -> None:
    name, words = typed_by_make(command)
    options = parse(name, *words)
    assert name in ("pretrain", "finetune", "proposals")
    if name == "finetune":
        config = compose.finetuning_config(options["model"], options["dataset"], options["schedule"])
        assert config.model.type == "KNet"
        assert options["init"] in ("scratch", *BACKBONES, *DETECTORS)
        assert not options["checkpoint"] or options["init"] in DETECTORS


def test_every_initialisation_is_on_the_page() -> None:
    rows = [line.split("|")[1] for line in PAGE.splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert named >= {"scratch", *BACKBONES, *DETECTORS}
