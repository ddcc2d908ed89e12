"""How options are parsed, and what the shared ones pass on."""

from typing import Any

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.options import Command, WordsOption, settings_options
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


def overrides_of(*words: str) -> Overrides:
    found: list[Overrides] = []

    @click.command(cls=Command)
    @settings_options("overrides", Overrides)
    def command(overrides: Overrides) -> None:
        found.append(overrides)

    command.main(list(words), standalone_mode=False)
    return found[0]


def test_nothing_given_changes_nothing() -> None:
    assert overrides_of() == Overrides()


def test_everything_given_is_passed_on() -> None:
    numbers = "--epochs 3 --total-batch 6 --batch-size 2 --image-size 192 --workers 0 --seed 7"
    switches = "--auto-scale-lr --amp --ema --data-root x --cfg-options a.b=1 c=2"
    assert overrides_of(*f"{numbers} {switches}".split()) == Overrides(
        epochs=3,
        total_batch=6,
        batch_size=2,
        image_size=192,
        workers=0,
        seed=7,
        auto_scale_lr=True,
        amp=True,
        ema=True,
        data_root="x",
        cfg_options=("a.b=1", "c=2"),
    )


@pytest.mark.parametrize(
    ("selection", "names"),
    [
        ({"only": ["held_out_seed", "classes"]}, ["classes", "held_out_seed"]),
        ({"without": ["test_labels", "classes"]}, ["held_out_seed", "skip_malformed"]),
    ],
)
def test_fields_can_be_chosen_or_left_out_and_stay_in_order(selection: dict[str, list[str]], names: list[str]) -> None:
    @click.command(cls=Command)
    @settings_options("custom", CustomDatasetOptions, **selection)
    def command(custom: CustomDatasetOptions) -> None: ...

    assert [parameter.name for parameter in command.params if parameter.name != "debug"] == names


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
    @settings_options("custom", CustomDatasetOptions)
    def command(custom: CustomDatasetOptions) -> None:
        found.append(custom)

    command.main([], standalone_mode=False)
    words = "--test-labels a.json --classes cat dog --held-out-seed 3 --skip-malformed"
    command.main(words.split(), standalone_mode=False)
    assert found == [
        CustomDatasetOptions(),
        CustomDatasetOptions(test_labels="a.json", classes=("cat", "dog"), held_out_seed=3, skip_malformed=True),
    ]
