"""`bench`: what the project's parts cost beside reference implementations of the same, and what prompts do.

The measuring code is `tests/benchmarks`, and what it compares with `tests/reference`: both need a checkout.
"""

import os
import sys
from importlib import import_module
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

import click

from pipelines.console import format_table
from pipelines.options import PATH, POSITIVE, Group, device_option
from stage1_proposals.common.errors import UserError
from stage1_proposals.common.system import choose_device
from stage2_training import quiet_imports

# The benchmarks of `tests/benchmarks`: what each measures, and its module.
MODULES = {
    "proposals": ("Stage 1 beside a reference implementation and the backbone's forward pass.", "proposal_speed"),
    "training": ("A training step of K-Net with Saliency Prompt beside a port of K-Net's losses.", "training_speed"),
    "operators": ("A training step with MMCV's compiled operators beside those in PyTorch.", "operator_speed"),
    "prediction": ("Predicting with a run beside its network alone, in PyTorch and ONNX Runtime.", "prediction_speed"),
    "gpu": ("Stage 1 and training steps on a GPU, as tables for docs/performance.md.", "gpu_speed"),
    "streaming": ("Reading shards, and the start on a large set, beside h5py and CocoDataset.", "streaming_speed"),
}


class Benchmarks(Group):
    """The commands below, and those of `tests/benchmarks`, which are imported when they run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*MODULES, *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in MODULES:
            return super().get_command(ctx, cmd_name)
        sys.path.insert(0, os.getcwd())
        if find_spec("tests") is None or find_spec("tests.benchmarks") is None:
            raise UserError("tests/benchmarks: not found; run `bench` in the root of a checkout of the project")
        with quiet_imports():
            return import_module(f"tests.benchmarks.{MODULES[cmd_name][1]}").command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        own = [(name, command.get_short_help_str(limit=120)) for name, command in self.commands.items()]
        with formatter.section("Commands"):
            formatter.write_dl([*((name, purpose) for name, (purpose, _) in MODULES.items()), *own])


@click.group("bench", cls=Benchmarks)
def command() -> None:
    """Measure a part beside a reference implementation, or what a pre-training run makes of its prompts."""


@command.command()
@click.option("--work-dir", required=True, metavar="DIR", help="Of a pre-training run with prompts.")
@click.option("--checkpoint", type=PATH, help="A file of it. Default: the latest.")
@click.option("--batches", type=POSITIVE, default=8, help="Of images to look at.")
@device_option
def prompts(work_dir: str, checkpoint: Path | None, batches: int, device: str | None) -> None:
    """Whether a model in pre-training reads its prompts: its losses with them, with others', and without."""
    with quiet_imports():
        from stage2_training.inference import predictor
        from stage2_training.runs import train
        from stage2_training.runs.runner import QuietRunner
        from stage2_training.runs.work_dir import WorkDir
        from stage2_training.saliency_prompt.diagnostics import VARIANTS, diagnose_prompts

    choose_device(device)
    work = WorkDir(work_dir)
    config = work.read_config()
    if config.model.get("saliency_prompt", {"matching": "none"})["matching"] == "none":
        raise UserError(f"{work_dir}: a run without prompts")
    checkpoint = checkpoint or work.require_checkpoint(last=True)
    model = predictor.load_detector(config, checkpoint)
    loader = QuietRunner.build_dataloader(
        {**config.train_dataloader, "num_workers": 0, "persistent_workers": False}, seed=config.randomness.seed
    )
    with train.plain_user_errors(work.path):
        inputs = (predictor.preprocess(model, batch, training=True) for batch in islice(loader, batches))
        use = diagnose_prompts(model, inputs)
    within, across = use.likeness
    print(f"{checkpoint} on {use.images} images\n")
    rows = [[name, *(f"{loss[given]:.3f}" for given in VARIANTS)] for name, loss in use.losses.items()]
    print(format_table(("loss, by each query's prompt", *VARIANTS), rows))
    hits = ", ".join(f"{100 * share:.1f} %" for share in use.hits)
    print(
        f"\nThe median length of a prompt is {use.length:.3g} times that of the query that it is added to.\n"
        f"The query matched with an instance has the prompt of that instance in {hits} of the cases, by stage; at "
        f"random {100 * use.chance:.1f} %. Of the prompts, {100 * use.used:.0f} % are used.\n"
        f"The mean cosine of two prompts is {within:.2f} within an image and {across:.2f} across images."
    )
