"""The command-line application: `python -m pipelines COMMAND`, installed as `saliency-prompt COMMAND`."""

import importlib
import io
import sys
import traceback
from collections.abc import Sequence

import click

from pipelines.console import one_line
from pipelines.options import Group
from stage1_proposals.common.errors import UserError
from stage1_proposals.common.system import configure_process

# What each command does in one line, and where it is. A module is imported when its command runs.
COMMANDS = {
    "demo": ("Run the whole job at a size for two CPU cores.", "pipelines.demo"),
    "data": ("Check, convert and draw a labelled dataset.", "pipelines.data"),
    "proposals": ("Make shards of pseudo masks from images (stage 1).", "pipelines.proposals"),
    "inspect": ("Verify a shard set, print what it holds, draw a contact sheet.", "pipelines.shards:inspect"),
    "prelabel": ("Write proposals as label files to correct in a labelling tool.", "pipelines.shards:prelabel"),
    "fetch": ("Copy a shard set from a URL to a directory.", "pipelines.shards:fetch"),
    "duplicates": ("Find images that are nearly the same.", "pipelines.shards:duplicates"),
    "select": ("Select the images to label next.", "pipelines.select"),
    "cluster": ("Give every proposal a pseudo class by k-means.", "pipelines.shards:cluster"),
    "recall": ("Print class-agnostic AP and recall of shard sets.", "pipelines.shards:recall"),
    "pretrain": ("Pre-train a detector on shards (stage 2).", "pipelines.pretrain"),
    "finetune": ("Fine-tune a detector on a labelled dataset.", "pipelines.finetune"),
    "evaluate": ("Evaluate a checkpoint: COCO AP of masks and boxes.", "pipelines.evaluate"),
    "predict": ("Find the objects of images: label files, masks, pictures.", "pipelines.predict"),
    "export": ("Write a detector as ONNX, TorchScript or weights.", "pipelines.export"),
    "draw": ("Draw learning curves, what queries look at, or detections.", "pipelines.draw"),
    "table": ("Print a table of the paper beside the paper's numbers.", "pipelines.experiments.reproduce:table"),
    "figure": ("Draw a figure of the paper.", "pipelines.experiments.reproduce:figure"),
    "bench": ("Measure a part beside a reference implementation.", "pipelines.bench"),
    "report": ("Write one HTML page of all runs, shard sets, tables and figures.", "pipelines.report"),
}


class Application(Group):
    """The commands of `COMMANDS`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][1].partition(":")
        return getattr(importlib.import_module(module), attribute or "command")

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, purpose) for name, (purpose, _) in COMMANDS.items()])


@click.command(cls=Application)
def application() -> None:
    """Unsupervised pre-training of query-based instance segmenters with Saliency Prompt."""


def run(command: click.Command, arguments: Sequence[str]) -> int:
    """Run a command line; returns the process's exit code.

    That is 0 on success, 2 with one line on stderr after a `UserError` or a mistyped command line (with `--debug`, the
    traceback as well), 130 after Ctrl-C. Any other exception is a bug and propagates. Commands get the whole command
    line, as typed, by `@click.pass_obj`.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names need not be UTF-8, nor terminals
    name, words = "python -m pipelines", list(arguments)
    try:
        with command.make_context(name, words or ["--help"], obj=[*name.split(), *arguments]) as context:
            command.invoke(context)
    except click.exceptions.Exit as end:  # after --help
        return end.exit_code
    except (UserError, click.ClickException) as error:
        if "--debug" in arguments:
            traceback.print_exc()
        message = error.format_message() if isinstance(error, click.ClickException) else str(error)
        print(f"error: {one_line(' '.join(message.split()))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nInterrupted; run the same command again to resume.", file=sys.stderr)
        return 130
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line, by default this process's own; returns the exit code."""
    configure_process()
    return run(application, sys.argv[1:] if arguments is None else arguments)


if __name__ == "__main__":
    sys.exit(main())
