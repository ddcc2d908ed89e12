"""`make proposals`: images in, HDF5 shards of pseudo masks and seed features out (stage 1)."""

import argparse
import os
import sys
import tomllib
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from pipelines import cli
from stage1_proposals.backbones.catalogue import CATALOGUE
from stage1_proposals.common.errors import UserError
from stage1_proposals.common.system import choose_device
from stage1_proposals.images.listing import list_images
from stage1_proposals.jobs.store import Store, open_store
from stage1_proposals.shards import ShardEntry, ShardReader

CONFIGS = Path(__file__).resolve().parent.parent / "configs" / "proposals"
GENERATORS = ", ".join(sorted(path.stem for path in CONFIGS.glob("*.toml")))
JOB_KEYS = ("images_per_shard", "batch_size", "short_side", "long_side")


def build_parser() -> argparse.ArgumentParser:
    parser = cli.Parser(prog="python -m pipelines.proposals", description=__doc__)
    add_image_options(parser, required=True)
    parser.add_argument("--shards", required=True, help="directory of the shard set, or a URL as s3://bucket/shards")
    add_job_options(parser)
    parser.add_argument("--generator", help=f"{GENERATORS}, or your own as package.module:Class; default: the config's")
    parser.add_argument(
        "--config", type=Path, help="TOML file of settings; default: the generator's in configs/proposals"
    )
    parser.add_argument(
        "--set",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="generator settings, e.g. threshold=0.6 nms='\"matrix\"'",
    )
    return parser


def add_image_options(parser: argparse.ArgumentParser, required: bool) -> None:
    """Add the options that name the images."""
    parser.add_argument(
        "--images",
        required=required,
        type=Path,
        help="folder of images, searched at any depth; or COCO JSON; or text file with one path per line",
    )
    parser.add_argument("--image-root", type=Path, help="folder that the paths of a JSON or text file are relative to")


def add_job_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that are the same for every generator."""
    parser.add_argument("--backbone", default="lite0_imagenet", help=f"{', '.join(CATALOGUE)}, or any model of timm's")
    parser.add_argument("--weights", type=Path, help="the backbone's checkpoint (.pth, .safetensors); timm's need one")
    parser.add_argument(
        "--workers",
        type=cli.at_least(0),
        help="Ray actors; 0: this process alone; default: one per GPU or core of the cluster",
    )
    parser.add_argument("--device", help="torch device; default: the GPU when there is one")
    parser.add_argument(
        "--precision", help="of the backbone: float32 or bfloat16; default: bfloat16 on a GPU that has it, else float32"
    )
    for key in JOB_KEYS:
        parser.add_argument(f"--{key.replace('_', '-')}", type=cli.at_least(1), help="overrides the config")
    parser.add_argument("--retry-failed", action="store_true", help="read the images that failed before once more")


def read_settings(path: Path | None, name: str | None, overrides: list[str]) -> dict[str, Any]:
    """The config's settings with KEY=VALUE overrides of its `[generator]`; values are TOML, bare words are text.

    Args:
        path: the config; None for the one called `name`, or for no config if `name` is a user's own generator.
        name: of a config or generator; None for the config's generator.

    Raises:
        UserError: no such file, not TOML, or of another generator.
    """
    is_given = path is not None
    path = path or CONFIGS / f"{name or 'saliency'}.toml"
    is_own = not is_given and ":" in path.name
    if not is_given and not is_own and not path.exists():
        raise UserError(f"no generator {name!r}; there are {GENERATORS}, and your own as package.module:Class")
    try:
        settings = {"generator": {"name": name}} if is_own else tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"config {path}: cannot be read ({error.strerror})") from error
    except ValueError as error:  # not TOML, or not UTF-8
        raise UserError(f"config {path}: {error}") from error
    generator = settings.setdefault("generator", {})
    if not isinstance(generator, dict):
        raise UserError(f"config {path}: [generator] must be a table")
    if is_given and name is not None and generator.setdefault("name", name) != name:
        raise UserError(f"config {path}: is for the generator {generator['name']}, not {name}")
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals:
            raise UserError(f"--set {override}: write KEY=VALUE")
        try:
            parsed = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            parsed = value
        generator[key] = parsed
    unknown = sorted(set(settings) - {*JOB_KEYS, "generator"})
    if unknown:
        raise UserError(f"config {path}: unknown settings {', '.join(unknown)}")
    return settings


def choose_precision(asked: str | None, device: str) -> str:
    """The precision asked for, or the fastest that the device multiplies natively; of a cluster's GPUs, bfloat16."""
    import torch

    here = torch.cuda.is_available()
    native = device == "cuda" and (not here or torch.cuda.is_bf16_supported(including_emulation=False))
    return asked or ("bfloat16" if native else "float32")


def print_summary(store: Store, entries: list[ShardEntry]) -> None:
    images, proposals = sum(entry.images for entry in entries), sum(entry.proposals for entry in entries)
    failures = sum(entry.failures for entry in entries)
    print(f"{store}: {len(entries)} shards, {images} images, {proposals} proposals, {failures} images failed")
    shown = []
    for entry in entries:
        if entry.failures:
            with store.reading(entry.file) as path, closing(ShardReader(path)) as reader:
                shown += reader.failures()
    for name, reason in shown[:20]:
        print(f"  failed: {cli.on_one_line(name)}: {reason}")
    if len(shown) > 20:
        print(f"  ... and {len(shown) - 20} more; each shard lists its own under /failures")
    if shown:
        print("  Put right, they are read when the command is run again with OPTS=--retry-failed.")


def main(args: argparse.Namespace) -> None:
    # PyTorch takes seconds to import; `--help` and mistyped options need not wait for it.
    from stage1_proposals.common.settings import build_settings
    from stage1_proposals.generators.registry import build_generator
    from stage1_proposals.jobs.request import Job, JobSettings, Recipe
    from stage1_proposals.jobs.run import run

    store = open_store(args.shards)
    settings = read_settings(args.config, args.generator, args.set)
    device = choose_device(args.device, on_cluster=bool(os.environ.get("RAY_ADDRESS")) and args.workers != 0)
    generator = settings.pop("generator")
    sizes = build_settings(JobSettings, settings, f"config {args.config}")
    options = {key: getattr(args, key) for key in JOB_KEYS if getattr(args, key) is not None}
    if "short_side" in options and "long_side" not in options:  # keep the proportions
        options["long_side"] = round(args.short_side * sizes.long_side / sizes.short_side)
    recipe = Recipe(
        generator=build_generator(generator),
        backbone=args.backbone,
        weights=args.weights and str(args.weights.resolve()),
        device=device,
        precision=choose_precision(args.precision, device),
        settings=replace(sizes, **options),
    )
    job = Job(list_images(args.images, args.image_root, args.shards), recipe)
    source = args.images if args.images.is_dir() else f"{args.images}, under {job.images.root},"
    print(f"{len(job.images)} images from {source} -> {job.shard_count} shards in {store}", flush=True)
    # Drawn once the first images are done: what the user got wrong shows before that, alone.
    with tqdm(total=len(job.images), unit="image", delay=0.1, mininterval=0.5, smoothing=0.1) as bar:

        def progress(count: int) -> None:
            if count:
                bar.update(count)
            else:  # work begins: start-up does not count for images per second and time left
                bar.unpause()
                bar.start_t = bar.last_print_t

        entries = run(job, args.shards, args.workers, progress, args.retry_failed)
    print_summary(store, entries)


if __name__ == "__main__":
    sys.exit(cli.run(main, build_parser()))
