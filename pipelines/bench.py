"""`bench`: what the project's parts cost beside reference implementations of the same, and what prompts do.

The measuring code is `tests/benchmarks`, and what it compares with `tests/reference`: both need a checkout.
"""

import os
import sys
from importlib import import_module
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import click

from pipelines.console import format_table, quiet_imports
from pipelines.options import NON_NEGATIVE, PATH, POSITIVE, Group, Integer, device_option
from stage1_proposals.common.errors import UserError
from stage1_proposals.common.system import choose_device


def run_benchmark(module: str, settings: dict[str, Any]) -> None:
    """Run a module of `tests/benchmarks`.

    Raises:
        UserError: this is not the root of a checkout.
    """
    sys.path.insert(0, os.getcwd())
    if find_spec("tests") is None or find_spec("tests.benchmarks") is None:
        raise UserError("tests/benchmarks: not found; run `bench` in the root of a checkout of the project")
    with quiet_imports():
        benchmark = import_module(f"tests.benchmarks.{module}")
    benchmark.main(**settings)


@click.group("bench", cls=Group)
def command() -> None:
    """Measure a part beside a reference implementation, or what a pre-training run makes of its prompts."""


@command.command()
@click.option("--images", default="data/demo/unlabeled", type=PATH, help="Images; used repeatedly if there are few.")
@click.option("--backbone", default="imagenet_r50", help="Of the catalogue, or any of timm's.")
@click.option("--weights", type=PATH, help="The backbone's checkpoint. Default: random weights.")
@click.option("--short-side", type=POSITIVE, default=480, help="Pixels.")
@device_option
@click.option("--precision", help="float32 or bfloat16. Default: as `proposals`.")
@click.option("--workers", type=NON_NEGATIVE, help="Ray actors. Default: as `proposals`.")
@click.option("--count", type=Integer(min=8), default=240, help="Images of ours and of the forward pass.")
@click.option("--plain-count", type=Integer(min=2), default=24, help="Images of the reference.")
@click.option("--repeat", type=POSITIVE, default=2, help="Rounds; the best of each counts.")
def proposals(**settings: Any) -> None:
    """Stage 1 beside a reference implementation and beside the backbone's forward pass, which bounds it."""
    run_benchmark("proposal_speed", settings)


@command.command()
@click.option("--model", help="configs/pretraining/MODEL.py of a K-Net. Default: knet on a GPU, else knet_lite0.")
@click.option("--batch-size", type=POSITIVE, help="Images. Default: 12 on a GPU, else 4.")
@click.option(
    "--size",
    type=Integer(min=32),
    nargs=2,
    metavar="WIDTH HEIGHT",
    help="Of the images, in pixels. Default: 1333 800 on a GPU, else 512 384.",
)
@device_option
@click.option("--repeat", type=POSITIVE, default=10, help="Rounds; medians count.")
def training(**settings: Any) -> None:
    """A training step of K-Net and of Saliency Prompt beside a port of the official K-Net's losses."""
    run_benchmark("training_speed", settings)


@command.command()
@click.option("--count", type=Integer(min=5), default=60, help="Images to read.")
@click.option("--start-count", type=POSITIVE, default=123_403, help="Images of the set to start on.")
@click.option("--masks", type=POSITIVE, default=10, help="Per image, in the COCO JSON.")
@click.option(
    "--coco-share",
    type=POSITIVE,
    default=20,
    metavar="N",
    help="Start MMDetection's dataset on one N-th of the images, and multiply: all of them take about 15 GB of memory.",
)
@click.option("--repeat", type=POSITIVE, default=3, help="Rounds over the images.")
def streaming(**settings: Any) -> None:
    """Reading samples from shards, and the start on a large set, beside h5py and MMDetection's CocoDataset."""
    run_benchmark("streaming_speed", settings)


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
    checkpoint = checkpoint or work.require_checkpoint()
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
    print(format_table(("loss, by each query's prompt", *VARIANTS), rows, markdown=False, left=1))
    hits = ", ".join(f"{100 * share:.1f} %" for share in use.hits)
    print(
        f"\nThe median length of a prompt is {use.length:.3g} times that of the query that it is added to.\n"
        f"The query matched with an instance has the prompt of that instance in {hits} of the cases, by stage; at "
        f"random {100 * use.chance:.1f} %. Of the prompts, {100 * use.used:.0f} % are used.\n"
        f"The mean cosine of two prompts is {within:.2f} within an image and {across:.2f} across images."
    )
