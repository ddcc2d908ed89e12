"""How options are parsed, and what the shared ones pass on."""

from typing import Any

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.options import Command, WordsOption, custom_dataset_options, run_options
from stage2_training.config.overrides import Overrides
from stage2_training.labels.custom import CustomDatasetOptions
from tests.pipelines.command import parse

WORDS = st.lists(st.text("a0=.,", min_size=1), min_size=1)


def parse_words(*words: str) -> dict[str, Any]:
    options = [WordsOption(["--seeds"], type=int), WordsOption(["--set"]), click.Option(["--amp"], is_flag=True)]
    command = Command("do", params=[*options, click.Argument(["runs"], nargs=-1)], callback=lambda **_: None)
    return command.make_context("do", list(words)).params


@given(WORDS, WORDS)
def test_several_words_are_one_options_also_when_it_is_repeated(first: list[str], second: list[str]) -> None:
    together = parse_words("--set", *first, *second)
    repeated = parse_words("--set", *first, "--amp", "--set", *second)
    assert together["set"] == repeated["set"] == (*first, *second)
    assert (together["amp"], repeated["amp"]) == (False, True)


def test_words_end_at_the_next_option() -> None:
    parsed = parse_words("a", "b", "--seeds", "0", "-1", "2", "--set", "x=1", "--amp", "c")
    assert parsed == {"seeds": (0, -1, 2), "set": ("x=1",), "amp": True, "runs": ("a", "b", "c")}
    assert parse_words() == {"seeds": (), "set": (), "amp": False, "runs": ()}


@pytest.mark.parametrize("words", [["--seeds"], ["--seeds", "--amp"], ["--amp", "--seeds", "--set", "a"]])
def test_an_option_without_its_words_is_a_usage_error(words: list[str]) -> None:
    with pytest.raises(click.UsageError, match="Option '--seeds' requires an argument"):
        parse_words(*words)


def overrides_of(*words: str) -> tuple[Overrides, dict[str, Any]]:
    found: list[dict[str, Any]] = []

    @click.command(cls=Command)
    @run_options(schedule="pretrain", work_dir="work_dirs/x")
    def command(schedule: str, work_dir: str | None, device: str | None, gpus: int, **overrides: Any) -> None:
        found.append({"schedule": schedule, "work_dir": work_dir, "device": device, "gpus": gpus})
        found.append(overrides)

    command.main(list(words), standalone_mode=False)
    return Overrides(**found[1]), found[0]


def test_nothing_given_changes_nothing_but_the_seed() -> None:
    overrides, others = overrides_of()
    assert overrides == Overrides(seed=0, cfg_options=())
    assert others == {"schedule": "pretrain", "work_dir": None, "device": None, "gpus": 1}


def test_everything_given_is_passed_on() -> None:
    numbers = "--epochs 3 --total-batch 6 --batch-size 2 --image-size 192 --workers 0 --seed 7"
    switches = "--auto-scale-lr --amp --ema --cfg-options a.b=1 c=2"
    assert overrides_of(*f"{numbers} {switches}".split())[0] == Overrides(
        epochs=3,
        total_batch=6,
        batch_size=2,
        image_size=192,
        workers=0,
        seed=7,
        auto_scale_lr=True,
        amp=True,
        ema=True,
        cfg_options=("a.b=1", "c=2"),
    )


@pytest.mark.parametrize(
    "arguments",
    [
        *("--epochs 0", "--batch-size 0", "--total-batch 0", "--gpus 0"),
        *("--workers -1", "--seed x", "--epochs 1.5"),
    ],
)
def test_numbers_out_of_range_are_usage_errors(arguments: str) -> None:
    option = arguments.split()[0]
    with pytest.raises(click.BadParameter) as raised:
        parse("pretrain", *arguments.split())
    assert f"Invalid value for '{option}': " in raised.value.format_message()


def test_the_options_of_a_custom_dataset_are_passed_on_together() -> None:
    found: list[CustomDatasetOptions] = []

    @click.command(cls=Command)
    @custom_dataset_options
    def command(custom: CustomDatasetOptions) -> None:
        found.append(custom)

    command.main([], standalone_mode=False)
    words = "--test-labels a.json --classes cat dog --held-out-seed 3 --skip-malformed"
    command.main(words.split(), standalone_mode=False)
    assert found == [CustomDatasetOptions(), CustomDatasetOptions("a.json", ("cat", "dog"), 3, True)]
