"""What a GPU does in ten minutes: stage 1 on real images and training steps, as tables for docs/performance.md."""

import gc
import os
import statistics
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import torch
from mmengine.config import ConfigDict

from pipelines.console import describe_machine, format_table
from pipelines.options import NON_NEGATIVE, PATH, POSITIVE, Command, device_option
from stage1_proposals.backbones.extractor import PRECISIONS, fastest_precision
from stage1_proposals.common.system import choose_device
from stage1_proposals.generators.registry import build_generator
from stage1_proposals.images.listing import ImageList, list_images
from stage1_proposals.jobs.request import Job, JobSettings, Recipe
from stage1_proposals.shards import ShardSet
from stage2_training.config.compose import read_prompt_variant, set_num_classes
from stage2_training.models import mmdet_fixes, timm_backbone  # noqa: F401 (registers the parts)
from tests.benchmarks.measuring import in_process
from tests.benchmarks.proposal_speed import (
    mean_best_iou,
    measure_forward,
    measure_run,
    random_weights,
    repeated,
    with_shards_of,
)
from tests.benchmarks.training_speed import Setting, Step, measure_in_turn, synthetic_batch

FEATURE_DIM = 2048  # of a ResNet-50's seed features
COMPARED = 24  # images whose proposals are compared with a CPU's, which takes about a second for each
PAPER = {"batch": 12, "size": (1333, 800), "models": ("knet", "mask2former", "queryinst")}
SMALL = {"batch": 2, "size": (512, 384), "models": ("knet_lite0", "mask2former_lite0", "queryinst_lite0")}


@click.command(cls=Command)
@click.option("--images", default="data/demo/unlabeled", type=PATH, help="Images; used repeatedly if there are few.")
@click.option("--backbone", default="imagenet_r50", help="Of the catalogue, or any of timm's.")
@click.option("--weights", type=PATH, help="The backbone's checkpoint. Default: random weights.")
@click.option("--short-side", type=POSITIVE, default=480, help="Pixels, of stage 1's images.")
@click.option("--count", type=click.IntRange(min=8), default=960, help="Images of stage 1.")
@click.option("--workers", type=NON_NEGATIVE, help="Ray actors of stage 1. Default: as `proposals`.")
@click.option("--model", "models", multiple=True, help="configs/pretraining/MODEL.py. Default: three of the paper.")
@click.option("--batch-size", type=POSITIVE, help="Images of a training step. Default: 12 on a GPU, else 2.")
@click.option("--size", type=click.IntRange(min=32), nargs=2, metavar="WIDTH HEIGHT", help="Of these, in pixels.")
@click.option("--repeat", type=POSITIVE, default=5, help="Training steps; medians count.")
@device_option
@click.option("--out", type=PATH, help="File to write the tables to as well.")
def command(**settings: Any) -> None:
    """Stage 1 and training steps on a GPU (or a CPU, to try it), as Markdown tables."""
    main(**settings)


def main(
    images: Path,
    backbone: str,
    weights: Path | None,
    short_side: int,
    count: int,
    workers: int | None,
    models: tuple[str, ...],
    batch_size: int | None,
    size: tuple[int, int] | None,
    repeat: int,
    device: str | None,
    out: Path | None,
) -> None:
    """Print the tables as they are made; the arguments are the options of `bench gpu`."""
    listed = list_images(images)
    device = choose_device(device)
    standard: dict[str, Any] = PAPER if device == "cuda" else SMALL
    parts = [f"{describe_machine(device)}, CUDA {torch.version.cuda}; {os.cpu_count()} CPU cores"]
    print(parts[0], flush=True)
    with tempfile.TemporaryDirectory(prefix="saliency-prompt-bench-") as folder:
        recipe = Recipe(
            generator=build_generator({}),
            backbone=backbone,
            weights=str((weights or random_weights(backbone, Path(folder, "weights.pth"))).resolve()),
            device=device,
            settings=JobSettings(short_side=short_side, long_side=round(short_side * 1333 / 800)),
        )
        heading = (f"Stage 1, {backbone}, shorter side {short_side}, {count} images", *PRECISIONS)
        parts.append(format_table(heading, stage1_rows(listed, recipe, workers, Path(folder), count), markdown=True))
    print(parts[-1], flush=True)
    batch, pixels = batch_size or standard["batch"], size or standard["size"]
    heading = (f"A step of pre-training, batch {batch} of {pixels[0]} x {pixels[1]}", "time", "memory")
    settings = [Setting(model, batch, pixels, device) for model in models or standard["models"]]
    rows = [row for setting in settings for row in training_rows(setting, repeat)]
    parts.append(format_table(heading, rows, markdown=True))
    print(parts[-1], flush=True)
    if out is not None:
        out.write_text("\n\n".join(parts) + "\n")


def stage1_rows(
    images: ImageList, recipe: Recipe, workers: int | None, scratch: Path, count: int
) -> Iterator[tuple[str, ...]]:
    """Rows of images/s and of agreement, a column for each precision; `-` where the device emulates it."""
    many = Job(repeated(images, count, scratch / "images"), with_shards_of(recipe, max(8, count // 16)))
    few = Job(repeated(images, min(COMPARED, count), scratch / "few"), with_shards_of(recipe, COMPARED))
    native = [name for name in PRECISIONS if name in ("float32", fastest_precision(recipe.device, recipe.backbone))]
    threads = 1 if recipe.device == "cpu" else 4

    def row(name: str, cells: Mapping[str, str]) -> tuple[str, ...]:
        return (name, *(cells.get(precision, "-") for precision in PRECISIONS))

    def of(job: Job, generator: str, precision: str, device: str = recipe.device) -> Job:
        changed = replace(
            job.recipe, generator=build_generator({"name": generator}), precision=precision, device=device
        )
        return replace(job, recipe=changed)

    forward = {name: in_process(measure_forward, of(many, "saliency", name), threads) for name in native}
    yield row("forward pass alone", {name: f"{rate:.1f} images/s" for name, rate in forward.items()})
    for generator in ("saliency", "merging"):
        cells = {}
        for name in native:
            job = of(many, generator, name)
            rate, seconds = in_process(measure_run, job, scratch / f"{generator}-{name}", workers)
            cells[name] = f"{rate:.1f} images/s, after {seconds:.0f} s"
        yield row(f"end to end, `{generator}`", cells)
    for generator in ("saliency", "merging"):
        truth = scratch / f"{generator}-cpu"
        in_process(measure_run, of(few, generator, "float32", "cpu"), truth, 0)
        expected = {record.image_id: record.coco_rle() for record in ShardSet.open(truth).records()}
        cells = {}
        for name in native:
            found = scratch / f"{generator}-{name}-few"
            in_process(measure_run, of(few, generator, name), found, 0)
            cells[name] = f"{mean_best_iou(dict(expected), found):.4f}"
        yield row(f"mean best IoU with `{generator}` in float32 on the CPU", cells)


def training_rows(setting: Setting, repeat: int) -> Iterator[tuple[str, str, str]]:
    """Time and peak memory of a step, with and without prompts and mixed precision."""
    prompted = ConfigDict(read_prompt_variant(setting.model)["model"])
    set_num_classes(prompted, 1)
    vanilla = {name: value for name, value in prompted.items() if name != "saliency_prompt"}
    vanilla["type"] = prompted["type"].removeprefix("SaliencyPrompt")
    settings = {"feature_dim": FEATURE_DIM, **prompted["saliency_prompt"]}
    batch = synthetic_batch(setting, FEATURE_DIM)
    for prompts, config in (("", vanilla), (", prompts", prompted | {"saliency_prompt": settings})):
        for amp in (False, True):
            name = f"`{setting.model}`{prompts}{', --amp' if amp else ''}"
            yield (name, *measure_step(config, batch, setting, amp, repeat))


def measure_step(
    config: Mapping[str, Any], batch: Mapping[str, Any], setting: Setting, amp: bool, repeat: int
) -> tuple[str, str]:
    """Median time of a step, and the most memory that tensors on the GPU took."""
    on_gpu = setting.device == "cuda"
    gc.collect()
    if on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    try:
        step = Step(config, batch, setting, amp)
        seconds = measure_in_turn({"step": step}, setting.device, repeat)["step"]
    except torch.OutOfMemoryError:
        return "out of memory", "-"
    memory = f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB" if on_gpu else "-"
    return f"{1000 * statistics.median(seconds):.0f} ms", memory
