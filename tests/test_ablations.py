"""docs/ablations.md: `make` builds every command shown, it parses, and it composes the config that the page says."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.pretrain import compose_config
from stage1_proposals.shards import ShardSet
from stage2_training.config import compose
from stage2_training.config.overrides import Overrides
from stage2_training.runs import initial_weights
from stage2_training.runs.work_dir import flatten
from tests.shown_commands import in_code_blocks, parse

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "ablations.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in line[1:-1].split("|")]
    for line in PAGE.splitlines()
    if line.startswith("|") and "`make pretrain MODEL" in line
]
OTHERS = in_code_blocks(PAGE)
SEED = Overrides(seed=0)  # the command's default


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
        directories = [where for line in lines if f"make {command}" in line for where in work_directory(line)]
        assert len(directories) == len(set(directories)) > 2


def work_directory(command: str) -> Iterator[str]:
    """The work directory that a command gives, or its default."""
    words = dict(word.split("=", 1) for word in shlex.split(command)[2:])
    if "WORK_DIR" in words:
        yield words["WORK_DIR"]
    elif "INIT" in words:
        yield f"{words['MODEL']}-{words['INIT']}"
    else:
        yield str(initial_weights.pretraining_dir(words["MODEL"], words.get("PROMPTS") != "off"))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_a_row_changes_what_it_says_and_nothing_else(row: list[str], shards: ShardSet) -> None:
    _, changes, command, _ = row
    name, options = parse(command.strip("`"))
    assert name == "pretrain"
    for not_in_config in ("backbone", "weights", "work_dir", "device", "gpus"):
        options.pop(not_in_config)
    given_shards, prompts = options.pop("shards"), options.pop("prompts")
    config = compose_config(options.pop("model"), shards, prompts == "on", **options)
    method = dict(flatten(compose.pretraining_config("knet", "pretrain", shards, overrides=SEED).to_dict()))
    composed = dict(flatten(config.to_dict()))
    stated = re.findall(r"`([^`]*)`", changes)
    assert ("other shards" in changes) == (str(given_shards) != "shards-densecl")
    if stated == ["PROMPTS=off"]:
        assert composed.pop("model.type") == "KNet"
        method = {key: value for key, value in method.items() if not key.startswith("model.saliency_prompt.")}
        del method["model.type"]
    else:
        changed = {key: value for key, value in composed.items() if value != method[key]}
        assert changed == {
            f"model.saliency_prompt.{setting}": value
            for setting, value in compose.parse_saliency_prompt(stated).items()
        }
    assert composed.keys() == method.keys()


@pytest.mark.parametrize("command", OTHERS)
def test_every_other_command_parses_and_composes(command: str) -> None:
    name, options = parse(command)
    assert name in ("finetune", "proposals")
    if name == "finetune":
        config = compose.finetuning_config(options["model"], options["dataset"], options["schedule"])
        assert config.model.type == "KNet"
        known = ("scratch", *initial_weights.BACKBONES, *initial_weights.DETECTORS)
        assert options["init"] in known
        assert not options["checkpoint"] or options["init"] in initial_weights.DETECTORS


def test_every_initialisation_is_on_the_page() -> None:
    rows = [line.split("|")[1] for line in PAGE.splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert named >= {"scratch", *initial_weights.BACKBONES, *initial_weights.DETECTORS}
