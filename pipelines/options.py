"""How the commands' options are parsed, and the options that several commands have."""

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import Any

import click
from pydantic import TypeAdapter

from stage1_proposals.common.errors import UserError
from stage2_training.config.run_settings import DEFAULT_MODEL, LOWEST_SCORE

Function = Callable[..., Any]
Decorator = Callable[[Function], Function]

DEBUG = click.Option(["--debug"], is_flag=True, expose_value=False, help="Show the traceback of a user error.")


class WordsOption(click.Option):
    """An option that takes one word or several and may be repeated: `--seeds 0 1 2`. Its value is a tuple."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "multiple": True})

    def make_metavar(self, ctx: click.Context) -> str:
        return f"{super().make_metavar(ctx)} ..."


class Command(click.Command):
    """A command with `--debug`, whose options of class `WordsOption` take several words."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"context_settings": {"show_default": True}, **kwargs})
        self.params.append(DEBUG)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        names = {name for option in self.params if isinstance(option, WordsOption) for name in option.opts}
        return super().parse_args(ctx, list(_repeat_names(args, names)))


class Group(click.Group):
    """Commands of class `Command` under one name."""

    command_class = Command

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"no_args_is_help": False, **kwargs})
        self.params.append(DEBUG)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click's; the error names the commands that there are."""
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            ctx.fail(f"No such command '{args[0]}'; use one of {', '.join(self.list_commands(ctx))}.")
        return super().resolve_command(ctx, args)


def _repeat_names(words: Sequence[str], names: set[str]) -> Iterator[str]:
    """`--seeds 0 1` as `--seeds 0 --seeds 1`, which click understands, for the options in `names`."""
    option = ""
    for word, following in zip(words, [*words[1:], "--"], strict=False):
        if re.match(r"-\D", word):  # -1 is a value
            option = word if word in names else ""
            if option and re.match(r"-\D", following):
                raise click.UsageError(f"Option '{word}' requires an argument.")
            if option:
                continue
        elif option:
            yield option
        yield word


class ShardDirectory(click.Path):
    """The directory of a shard set, for commands that read shards row by row; a URL is refused."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if "://" in str(value):
            raise UserError(
                f"--shards {value}: is a URL; `make fetch SHARDS={value} TO=shards` brings it to a directory"
            )
        return super().convert(value, param, ctx)


class Integer(click.IntRange):
    """An integer in a range."""

    name = "integer"


class Choices(click.ParamType):
    """Some of a few words, separated by commas: `coco,labelme`. Its value is a tuple."""

    def __init__(self, known: Sequence[str]) -> None:
        self.known = known
        self.name = ",".join(known)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        words = tuple(dict.fromkeys(word.strip() for word in value.split(","))) if isinstance(value, str) else value
        for word in words:
            if word not in self.known:
                self.fail(f"{word!r} is not one of {', '.join(map(repr, self.known))}.", param, ctx)
        return words


POSITIVE, NON_NEGATIVE, PATH = Integer(min=1), Integer(min=0), click.Path(path_type=Path)
SHARD_DIRECTORY = ShardDirectory(file_okay=False, path_type=Path)

DEFAULT_DATASET = "demo"


def words_option(*names: str, **attributes: Any) -> Decorator:
    """An option that takes one word or several."""
    return click.option(*names, cls=WordsOption, **attributes)


def seed_option(purpose: str) -> Decorator:
    """`--seed`, 0 by default."""
    return click.option("--seed", type=NON_NEGATIVE, default=0, help=purpose)


def model_option(default: str | None = DEFAULT_MODEL, folders: str = "configs/models") -> Decorator:
    """`--model`."""
    return click.option("--model", default=default, help=f"MODEL.py of {folders}, or a config file.")


def dataset_option(default: str | None = DEFAULT_DATASET) -> Decorator:
    """`--dataset`."""
    text = "configs/datasets/DATASET.py, a config file, COCO JSON, a folder of labelme files, or data.yaml of YOLO."
    return click.option("--dataset", default=default, help=text)


SCHEDULE = "configs/schedules/SCHEDULE.py, or a config file. Default: the paper's on a GPU, a smaller one on a CPU."


def schedule_option(default: str | None = None) -> Decorator:
    """`--schedule`; None: the device decides, and the dataset if it names one."""
    return click.option("--schedule", default=default, help=SCHEDULE)


def format_option(known: Sequence[str], default: str) -> Decorator:
    """`--format` of label files, one or several; its value is a tuple."""
    return click.option("--format", type=Choices(known), default=default, help="Formats to write, separated by commas.")


def score(text: str) -> float:
    """The type of `--score`, a number from 0 to 1; unlike `click.FloatRange`, it refuses NaN."""
    with suppress(ValueError):
        if 0 <= float(text) <= 1:
            return float(text)
    raise UserError(f"--score {text!r}: must be between 0 and 1")


def score_option(purpose: str, default: float = LOWEST_SCORE) -> Decorator:
    """`--score`."""
    return click.option("--score", type=score, default=default, help=purpose)


def _check_threshold(ctx: click.Context, param: click.Parameter, value: float) -> float:
    if not 0.5 <= value <= 1:
        raise UserError(f"--threshold {value}: use 0.5 to 1")
    return value


def work_dir_option(default: str) -> Decorator:
    """`--work-dir` of a training run, with its default as the help text shows it."""
    return click.option("--work-dir", help=f"Where everything goes. Default: {default}.")


shards_option = click.option("--shards", default="shards", type=SHARD_DIRECTORY, help="Directory of the shard set.")
image_root_option = click.option("--image-root", type=PATH, help="Where the images are now, if they have moved.")
device_option = click.option("--device", type=click.Choice(["cpu", "cuda"]), help="Default: the GPU, if there is one.")
threshold_option = click.option(
    "--threshold",
    type=float,
    default=0.8,
    callback=_check_threshold,
    help="Similarity from which images are duplicates, 0.5 to 1.",
)
image_counts_option = click.option(
    "--count",
    nargs=3,
    type=POSITIVE,
    metavar="UNLABELED TRAIN TEST",
    show_default="480 60 60",
    help="Numbers of the demo's images.",
)


def experiment_options(function: Function) -> Function:
    """The options of commands that execute runs: which seeds, where, how many at once."""
    decorators = (
        words_option("--seeds", type=NON_NEGATIVE, default=(0,), show_default="0", metavar="SEED", help="A run each."),
        click.option("--jobs", type=POSITIVE, default=1, help="Runs at once, each on its share of the cores."),
        click.option("--dry-run", is_flag=True, help="Print the runs and their commands only."),
        click.option("--work-dir", type=PATH, default="work_dirs/experiments", help="Runs go to a folder in it."),
        device_option,
        click.option("--gpus", type=POSITIVE, show_default="1", help="Processes of training."),
        click.option("--batch-size", type=POSITIVE, help="Images of a process at a time; the total batch stays."),
        image_counts_option,
        click.option("--pretrain-epochs", type=POSITIVE, help="Default: the schedule's, or the scale's."),
        click.option("--finetune-epochs", type=POSITIVE, help="Default: the dataset's, or the scale's."),
    )
    for decorate in reversed(decorators):
        function = decorate(function)
    return function


def settings_options(
    argument: str, model: type, only: Collection[str] = (), without: Collection[str] = ()
) -> Decorator:
    """An option for each field of a pydantic model, which owns the types, defaults and help texts.

    Args:
        argument: by which the command's function gets the instance of the model.
        only, without: names of fields that have an option, and that have none. Default: all fields have one.
    """
    fields = TypeAdapter(model).json_schema()["properties"]
    names = [name for name in fields if name not in without and (not only or name in only)]

    def decorate(function: Function) -> Function:
        @wraps(function)
        def collected(*args: Any, **options: Any) -> Any:
            values = {name: options.pop(name) for name in names}
            return function(*args, **{argument: model(**values)}, **options)

        decorated: Function = collected
        for name in reversed(names):  # shown by `--help` in the fields' order
            decorated = _field_option(name, fields[name])(decorated)
        return decorated

    return decorate


def _field_option(name: str, schema: dict[str, Any]) -> Decorator:
    """The option of a field, given its JSON schema."""
    flag, text = f"--{name.replace('_', '-')}", schema["description"]
    (value,) = (kind for kind in schema.get("anyOf", [schema]) if kind["type"] != "null")
    if value["type"] == "boolean":
        return click.option(flag, is_flag=True, help=text)
    if value["type"] == "array":
        return words_option(flag, help=text, metavar=schema.get("metavar"))
    if "enum" in value:
        return click.option(flag, type=click.Choice(value["enum"]), help=text)
    if value["type"] == "integer":
        least = value.get("minimum", value.get("exclusiveMinimum", -1) + 1)
        return click.option(flag, type=Integer(min=least), default=schema["default"], help=text)
    return click.option(flag, default=schema["default"], help=text, metavar=schema.get("metavar"))
