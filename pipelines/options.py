"""How the commands' options are parsed, and the options that several commands have."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import click

from stage1_proposals.common.errors import UserError

Function = Callable[..., Any]
Decorator = Callable[[Function], Function]


@dataclass
class Invocation:
    """How this process was started; commands get it by `@click.pass_obj`.

    Attributes:
        arguments: the words after `python -m MODULE`, as typed.
        module: what runs the commands.
        debug: print the traceback of a user error too.
    """

    arguments: tuple[str, ...]
    module: str = "pipelines"
    debug: bool = False

    @property
    def command(self) -> list[str]:
        """The words of the whole command line, for a run's provenance."""
        return ["python", "-m", self.module, *self.arguments]


def _set_debug(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        context.ensure_object(Invocation).debug = True


def _debug_option() -> click.Option:
    text = "Show the traceback of a user error."
    return click.Option(["--debug"], is_flag=True, expose_value=False, callback=_set_debug, help=text)


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
        self.params.append(_debug_option())

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        names = {name for option in self.params if isinstance(option, WordsOption) for name in option.opts}
        return super().parse_args(ctx, list(_repeat_names(args, names)))


class Group(click.Group):
    """Commands of class `Command` under one name."""

    command_class = Command

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"no_args_is_help": False, **kwargs})
        self.params.append(_debug_option())


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


class Integer(click.IntRange):
    """An integer in a range."""

    name = "integer"


class ShardDirectory(click.Path):
    """The directory of a shard set, for commands that read shards row by row; a URL is refused."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if "://" in str(value):
            raise UserError(
                f"--shards {value}: is a URL; `make fetch SHARDS={value} TO=shards` brings it to a directory"
            )
        return super().convert(value, param, ctx)


POSITIVE, NON_NEGATIVE, PATH = Integer(min=1), Integer(min=0), click.Path(path_type=Path)
SHARD_DIRECTORY = ShardDirectory(file_okay=False, path_type=Path)


DEFAULT_MODEL, DEFAULT_DATASET = "knet_lite0", "demo"


def words_option(*names: str, **attributes: Any) -> Decorator:
    """An option that takes one word or several."""
    return click.option(*names, cls=WordsOption, **attributes)


def seed_option(purpose: str) -> Decorator:
    """`--seed`, 0 by default."""
    return click.option("--seed", type=NON_NEGATIVE, default=0, help=purpose)


def model_option(default: str | None = DEFAULT_MODEL) -> Decorator:
    """`--model`."""
    return click.option("--model", default=default, help="configs/models/MODEL.py, or a config file.")


def dataset_option(default: str | None = DEFAULT_DATASET) -> Decorator:
    """`--dataset`."""
    text = "configs/datasets/DATASET.py, a config file, COCO JSON, or a folder of labelme files."
    return click.option("--dataset", default=default, help=text)


shards_option = click.option("--shards", default="shards", type=SHARD_DIRECTORY, help="Directory of the shard set.")
image_root_option = click.option("--image-root", type=PATH, help="Where the images are now, if they have moved.")
data_root_option = click.option("--data-root", help="Folder of the dataset. Default: what its config says.")
device_option = click.option("--device", type=click.Choice(["cpu", "cuda"]), help="Default: the GPU, if there is one.")
image_counts_option = click.option(
    "--count", nargs=3, type=POSITIVE, metavar="UNLABELED TRAIN TEST", help="Numbers of the demo's images."
)
workers_option = click.option("--workers", type=NON_NEGATIVE, help="Data-loading processes; 0: the main process.")
cfg_options_option = words_option("--cfg-options", metavar="KEY=VALUE", help="Change any setting, as in MMDetection.")


def apply_options(options: Sequence[Decorator]) -> Decorator:
    """One decorator from several options, shown by `--help` in this order."""

    def decorate(function: Function) -> Function:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def collect(into: str, names: Sequence[str], make: Callable[..., Any] = dict) -> Decorator:
    """A decorator that passes the options `names` as one argument, `into=make(name=value, ...)`."""

    def decorate(function: Function) -> Function:
        @wraps(function)
        def collected(*args: Any, **options: Any) -> Any:
            values = {name: options.pop(name) for name in names}
            return function(*args, **{into: make(**values)}, **options)

        return collected

    return decorate


SCHEDULE = "configs/schedules/SCHEDULE.py, or a config file. Default: the paper's on a GPU, a smaller one on a CPU."


def run_options(*, schedule: str | None, work_dir: str) -> Decorator:
    """The options of a training run: `schedule`, `work_dir`, `device`, `gpus`, and the settings of `Overrides`.

    Args:
        schedule: default schedule; None: the device, and the dataset if it names one, decide.
        work_dir: default work directory, as the help text shows it.
    """
    options: list[Decorator] = [
        click.option("--schedule", default=schedule, help=SCHEDULE),
        click.option("--work-dir", help=f"Where everything goes. Default: {work_dir}."),
        device_option,
        click.option("--gpus", type=POSITIVE, default=1, help="Processes, one per GPU; with --device cpu, on the CPU."),
        click.option("--epochs", type=POSITIVE, help="Length of training; milestones move with it."),
        click.option("--total-batch", type=POSITIVE, help="Images per optimizer step, over all processes."),
        click.option("--batch-size", type=POSITIVE, help="Images per process and forward pass, as memory allows."),
        click.option("--image-size", type=POSITIVE, help="Longer side of the images in pixels."),
        click.option("--auto-scale-lr", is_flag=True, help="Scale the learning rate with the total batch."),
        click.option("--amp", is_flag=True, help="Mixed precision, bfloat16."),
        click.option("--ema", is_flag=True, help="Use weights averaged over the steps."),
        workers_option,
        seed_option("Seed of everything random."),
        cfg_options_option,
    ]
    return apply_options(options)


def custom_dataset_options(function: Function) -> Function:
    """The options of a dataset named by its labels; the command gets them as `custom`, a `CustomDatasetOptions`."""

    def make(**values: Any) -> Any:
        from stage2_training.labels.custom import CustomDatasetOptions

        return CustomDatasetOptions(**values)

    names = ("test_labels", "classes", "held_out_seed", "skip_malformed")
    options: list[Decorator] = [
        click.option("--test-labels", metavar="LABELS", help="Labels to evaluate on, not a held-out fifth."),
        words_option("--classes", metavar="NAME", help="Use these classes only."),
        click.option("--held-out-seed", type=NON_NEGATIVE, default=0, help="Decides which images are held out."),
        click.option("--skip-malformed", is_flag=True, help="Leave out images that are missing or have bad labels."),
    ]
    return apply_options(options)(collect("custom", names, make)(function))
