"""Images in, HDF5 shards of pseudo masks and seed features out (stage 1)."""

import os
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipelines import options
from pipelines.console import print_lines, progress
from stage1_proposals.backbones.catalogue import CATALOGUE
from stage1_proposals.common.errors import UserError, quoted
from stage1_proposals.generators.registry import DEFAULT_GENERATOR, config_names, default_config, read_settings
from stage1_proposals.jobs.propose import DEFAULT_BACKBONE, build_job

if TYPE_CHECKING:
    from stage1_proposals.jobs.request import Job
    from stage1_proposals.jobs.store import Store
    from stage1_proposals.shards import ShardEntry

FAILURES_SHOWN = 20


@click.command(cls=options.Command)
@click.option("--images", default="data/demo/unlabeled", type=options.PATH, help="Folder, COCO JSON or list of paths.")
@click.option("--image-root", type=options.PATH, help="Folder that the paths of a JSON or text file are relative to.")
@click.option("--shards", default="shards", help="Directory of the shard set, or a URL such as s3://bucket/shards.")
@click.option("--backbone", default=DEFAULT_BACKBONE, help=f"{', '.join(CATALOGUE)}, or any model of timm.")
@click.option("--weights", type=options.PATH, help="The backbone's checkpoint (.pth, .safetensors).")
@click.option("--generator", help=f"{config_names()}, or your own as package.module:Class. Default: the config's.")
@click.option("--checkpoint", help="Of --generator checkpoint: the work directory of a run, or a checkpoint in it.")
@click.option("--config", type=options.PATH, help="TOML of settings. Default: the generator's in configs/proposals.")
@click.option("--objects", type=click.Choice(["any", "small"]), default="any", help="What to look for; see below.")
@options.words_option("--set", "changes", metavar="KEY=VALUE", help="Generator settings, e.g. threshold=0.6.")
@click.option("--workers", type=options.NON_NEGATIVE, help="Ray actors; 0: none. Default: one per GPU or core.")
@options.device_option
@click.option("--precision", help="float32 or bfloat16. Default: bfloat16 on a GPU that supports it, else float32.")
@click.option("--images-per-shard", type=options.POSITIVE, help="Default: the config's, or 16 to 1,000 by the images.")
@click.option("--batch-size", type=options.POSITIVE, help="Images per forward pass; overrides the config.")
@click.option("--short-side", type=options.POSITIVE, help="Input size in pixels; overrides the config.")
@click.option("--long-side", type=options.POSITIVE, help="Upper bound of the longer side; overrides the config.")
@click.option("--retry-failed", is_flag=True, help="Read the images that failed before once more.")
def command(
    images: Path,
    image_root: Path | None,
    shards: str,
    backbone: str,
    weights: Path | None,
    generator: str | None,
    checkpoint: str | None,
    config: Path | None,
    objects: str,
    changes: tuple[str, ...],
    workers: int | None,
    device: str | None,
    precision: str | None,
    retry_failed: bool,
    **sizes: int | None,
) -> None:
    """Make a shard set: pseudo masks and seed features of unlabeled images.

    Finished shards are kept; the same command run again makes the others.

    `--objects small` is for many small objects, such as cells under the microscope or cars from the air: no image is
    made smaller, large ones are cut into overlapping tiles, and an image has up to 100 proposals. The generator is
    then merging, unless you name another one.
    """
    from stage1_proposals.jobs.ray_address import check_reachable
    from stage1_proposals.jobs.store import open_store

    store = open_store(shards)
    settings = read_settings(config, generator, changes, objects)
    if checkpoint is not None:
        take_checkpoint(settings["generator"], checkpoint)
    if workers != 0:
        check_reachable(os.environ.get("RAY_ADDRESS", ""))
    job = build_job(
        images,
        shards,
        settings,
        owner=str(config or default_config(generator)),
        workers=workers,
        image_root=image_root,
        backbone=backbone,
        weights=weights,
        device=device,
        precision=precision,
        sizes=sizes,
    )
    from stage1_proposals.jobs.run import run

    print_lines(*job.images.remarks)
    source = images if images.is_dir() else f"{images}, under {job.images.root},"
    print(f"{len(job.images)} images from {source} -> {job.shard_count} shards in {store}", flush=True)
    if objects == "small":
        print_lines(*cost_of_small_objects(job))
    with progress("making proposals", "images", len(job.images)) as advance:
        entries = run(job, shards, workers, advance, retry_failed)
    print_summary(store, entries)


def cost_of_small_objects(job: "Job") -> list[str]:
    """How much the backbone computes for small objects, beside what it would for any: one line, or none."""
    from stage1_proposals.jobs.request import JobSettings

    settings = job.recipe.settings
    usual = JobSettings(feature_stride=settings.feature_stride).override(short_side=settings.short_side)
    pixels = job.input_pixels()
    usual_pixels = replace(job, recipe=replace(job.recipe, settings=usual)).input_pixels()
    if not pixels or not usual_pixels:
        return []
    return [
        f"--objects small: the backbone computes {pixels / 1e6:.2g} megapixels of an image, "
        f"{pixels / usual_pixels:.1f} times as many as without it"
    ]


def take_checkpoint(generator: dict[str, Any], checkpoint: str) -> None:
    """Add `--checkpoint` to the settings of the generator that it is for.

    Raises:
        UserError: they are another generator's.
    """
    name = generator.get("name", DEFAULT_GENERATOR)
    if name != "checkpoint":
        raise UserError(
            f"--checkpoint (CHECKPOINT=) goes with --generator checkpoint, not {name}; it names the trained model "
            f"whose masks are taken. A file of the backbone's weights is --weights (WEIGHTS=)"
        )
    generator["checkpoint"] = checkpoint


def print_summary(store: "Store", entries: "Sequence[ShardEntry]") -> None:
    """Print how many proposals a finished shard set has, and which images failed."""
    from stage1_proposals.shards import ShardReader

    images, proposals = sum(entry.images for entry in entries), sum(entry.proposals for entry in entries)
    failed = sum(entry.failures for entry in entries)
    print(f"{store}: {len(entries)} shards, {images} images, {proposals} proposals, {failed} images failed")
    failures = []
    for entry in entries:
        if entry.failures:
            with store.reading(entry.file) as path, closing(ShardReader(path)) as reader:
                failures += reader.failures()
    print_lines(*(f"  failed: {quoted(name)}: {reason}" for name, reason in failures[:FAILURES_SHOWN]))
    if len(failures) > FAILURES_SHOWN:
        print(f"  ... and {len(failures) - FAILURES_SHOWN} more; each shard lists its own under /failures")
    if failures:
        print("  Repair them and run again with OPTS=--retry-failed to read them.")
