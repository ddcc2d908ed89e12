"""`bench`: what the project's parts cost beside plain implementations of the same, and what prompts do.

Everything that is compared is measured in one run, and ratios are printed: seconds alone say little about another
machine. The plain implementations are in `tests/reference`.
"""

import os
import sys
import tempfile
from collections.abc import Mapping
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

import click

from pipelines.console import format_table, quiet_imports
from pipelines.options import NON_NEGATIVE, PATH, POSITIVE, Group, Integer, device_option
from stage1_proposals.common.errors import UserError
from stage1_proposals.common.system import choose_device


def require_references() -> None:
    """Check that the plain implementations can be imported.

    Raises:
        UserError: this is not the root of a checkout.
    """
    sys.path.insert(0, os.getcwd())
    if find_spec("tests") is None or find_spec("tests.reference") is None:
        raise UserError("tests/reference: not found; run `bench` in the root of a checkout of the project")


def print_values(values: Mapping[str, str]) -> None:
    width = max(map(len, values))
    print(*(f"{name:<{width}}  {value}" for name, value in values.items()), "", sep="\n", flush=True)


def print_machine(device: str) -> None:
    from pipelines.experiments.record import describe_machine

    print(f"{describe_machine(device)}; {os.cpu_count()} CPU cores\n", flush=True)


@click.group("bench", cls=Group)
def command() -> None:
    """Measure a part beside a plain implementation, or what a pre-training run makes of its prompts."""


@command.command()
@click.option("--images", default="data/demo/unlabeled", type=PATH, help="Images; used repeatedly if there are few.")
@click.option("--backbone", default="imagenet_r50", help="Of the catalogue, or any of timm's.")
@click.option("--weights", type=PATH, help="The backbone's checkpoint. Default: random weights.")
@click.option("--short-side", type=POSITIVE, default=480, help="Pixels.")
@device_option
@click.option("--precision", help="float32 or bfloat16. Default: bfloat16 on a GPU, else float32.")
@click.option("--workers", type=NON_NEGATIVE, help="Ray actors. Default: as `proposals`.")
@click.option("--count", type=Integer(min=8), default=240, help="Images of ours and of the forward.")
@click.option("--plain-count", type=Integer(min=2), default=24, help="Images of the reference.")
@click.option("--repeat", type=POSITIVE, default=2, help="Rounds; the best of each counts.")
def proposals(
    images: Path,
    backbone: str,
    weights: Path | None,
    short_side: int,
    device: str | None,
    precision: str | None,
    workers: int | None,
    count: int,
    plain_count: int,
    repeat: int,
) -> None:
    """Stage 1 beside a plain implementation and beside the backbone's forward pass, which bounds it."""
    from stage1_proposals.images.listing import list_images

    listed = list_images(images)
    require_references()
    from pipelines.benchmarks import proposal_speed

    chosen = choose_device(device)
    chosen_precision = precision or ("bfloat16" if chosen == "cuda" else "float32")
    print_machine(chosen)
    with tempfile.TemporaryDirectory(prefix="saliency-prompt-bench-") as folder:
        scratch = Path(folder)
        file = weights or proposal_speed.random_weights(backbone, scratch / "weights.pth")
        recipe = proposal_speed.make_recipe(backbone, file, short_side, chosen, chosen_precision)
        print(f"{backbone}, shorter side {short_side}, {chosen_precision}\n", flush=True)
        print_values(proposal_speed.compare(listed, recipe, workers, scratch, count, plain_count, repeat))


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
@click.option("--instances", type=POSITIVE, default=20, help="Per image.")
@device_option
@click.option("--precision", type=click.Choice(["float32", "bfloat16"]), default="float32")
@click.option("--repeat", type=POSITIVE, default=10, help="Rounds; medians count.")
def training(
    model: str | None,
    batch_size: int | None,
    size: tuple[int, int] | None,
    instances: int,
    device: str | None,
    precision: str,
    repeat: int,
) -> None:
    """A training step of K-Net and of Saliency Prompt beside a port of the official K-Net's losses."""
    require_references()
    with quiet_imports():
        from pipelines.benchmarks import training_speed

    chosen = choose_device(device)
    on_gpu = chosen == "cuda"
    setting = training_speed.Setting(
        model=model or ("knet" if on_gpu else "knet_lite0"),
        batch_size=batch_size or (12 if on_gpu else 4),
        size=size or ((1333, 800) if on_gpu else (512, 384)),
        instances=instances,
        device=chosen,
        precision=precision,
    )
    print_machine(chosen)
    print_values(training_speed.compare_steps(setting, repeat))


@command.command()
@click.option("--count", type=Integer(min=5), default=60, help="Images to read.")
@click.option("--start-count", type=POSITIVE, default=123_403, help="Images of the set to start on.")
@click.option("--masks", type=POSITIVE, default=10, help="Per image, in the COCO JSON.")
@click.option(
    "--coco-share",
    type=POSITIVE,
    default=20,
    show_default=True,
    metavar="N",
    help="Start MMDetection's dataset on one N-th of the images, and multiply: all of them take about 15 GB of memory.",
)
@click.option("--repeat", type=POSITIVE, default=3, help="Rounds over the images.")
def streaming(count: int, start_count: int, masks: int, coco_share: int, repeat: int) -> None:
    """Reading samples from shards, and the start on a large set, beside h5py and MMDetection's CocoDataset."""
    require_references()
    with quiet_imports():
        from pipelines.benchmarks import training_speed

    print_machine("cpu")
    with tempfile.TemporaryDirectory(prefix="saliency-prompt-bench-") as folder:
        print("A sample of 20 proposals at 640 x 480, median on one core\n")
        print_values(training_speed.compare_reading(Path(folder), count, repeat))
        print("Start of a process that has imported PyTorch and MMDetection\n")
        print_values(training_speed.compare_start(Path(folder), start_count, masks, coco_share))


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
        from stage2_training.saliency_prompt.diagnostics import NONE, OTHERS, OWN, prompt_use

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
        inputs = (predictor.prepared(model, batch, training=True) for batch in islice(loader, batches))
        use = prompt_use(model, inputs)
    print(f"{checkpoint} on {use.images} images\n")
    rows = [[name, *(f"{loss[given]:.3f}" for given in (OWN, OTHERS, NONE))] for name, loss in use.losses.items()]
    print(format_table(("loss, each query having", f"{OWN} prompt", OTHERS, NONE), rows, markdown=False, left=1))
    hits = ", ".join(f"{100 * share:.1f} %" for share in use.hits)
    print(
        f"\nThe median length of a prompt is {use.length:.3g} times that of the query that it is added to.\n"
        f"The query matched with an instance has the prompt of that instance in {hits} of the cases, by stage; at "
        f"random {100 * use.chance:.1f} %."
    )
