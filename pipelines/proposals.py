"""`make proposals`: photos in, HDF5 shards of pseudo masks and seed features out (stage 1)."""

import argparse
import sys
import tomllib
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from pipelines import cli
from stage1_proposals.backbones import CATALOGUE
from stage1_proposals.errors import UserError
from stage1_proposals.generators import build_generator
from stage1_proposals.images import list_photos
from stage1_proposals.runner import Job, default_workers, run
from stage1_proposals.shards import ShardReader

DEFAULT_CONFIG = Path(__file__).resolve().parent.parent / "configs" / "proposals" / "saliency.toml"
JOB_KEYS = ("images_per_shard", "batch_size", "short_side", "long_side")


def build_parser() -> argparse.ArgumentParser:
    parser = cli.Parser(prog="python -m pipelines.proposals", description=__doc__)
    parser.add_argument("--images", required=True, type=Path, help="folder of photos, searched at any depth")
    parser.add_argument("--shards", required=True, type=Path, help="directory of the shard set")
    parser.add_argument("--backbone", default="lite0_imagenet", choices=sorted(CATALOGUE))
    parser.add_argument("--weights", type=Path, help="checkpoint file of the backbone; default: the catalogue's")
    parser.add_argument(
        "--workers", type=cli.at_least(0), help="Ray actors; 0: this process alone; default: one per GPU or core"
    )
    parser.add_argument("--device", help="torch device; default: the GPU when there is one")
    parser.add_argument("--config", type=Path, default=DEFAULT_CONFIG, help="TOML file of settings")
    for key in JOB_KEYS:
        parser.add_argument(f"--{key.replace('_', '-')}", type=cli.at_least(1), help="overrides the config")
    parser.add_argument(
        "--set",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="generator settings, e.g. threshold=0.6 nms='\"matrix\"'",
    )
    return parser


def read_settings(path: Path, overrides: list[str]) -> dict[str, Any]:
    """The config's table with KEY=VALUE overrides of its `[generator]`; values are TOML, bare words are text.

    Raises:
        UserError: no such file, or not TOML.
    """
    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"config {path}: cannot be read ({error.strerror})") from error
    except ValueError as error:  # not TOML, or not UTF-8
        raise UserError(f"config {path}: {error}") from error
    generator = settings.setdefault("generator", {})
    if not isinstance(generator, dict):
        raise UserError(f"config {path}: [generator] must be a table")
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


def choose_device(asked: str | None) -> str:
    """The device asked for, or the GPU when there is one.

    Raises:
        UserError: a GPU is asked for and there is none, or no such device type.
    """
    device = asked or ("cuda" if torch.cuda.is_available() else "cpu")
    if device not in ("cpu", "cuda"):
        raise UserError(f"device {device!r}: use cpu or cuda (CUDA_VISIBLE_DEVICES chooses among GPUs)")
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("device 'cuda': this machine has no usable GPU; use cpu")
    return device


def print_summary(directory: Path, rows: list[dict[str, Any]]) -> None:
    images, proposals, failures = (sum(row[key] for row in rows) for key in ("images", "proposals", "failures"))
    print(f"{directory}: {len(rows)} shards, {images} photos, {proposals} proposals, {failures} photos failed")
    shown = [failure for row in rows if row["failures"] for failure in ShardReader(directory / row["file"]).failures()]
    for name, reason in shown[:20]:
        print(f"  failed: {name}: {reason}")
    if len(shown) > 20:
        print(f"  ... and {len(shown) - 20} more; each shard lists its own under /failures")
    if shown:
        print("  Put right, they are read when their shard is deleted and the command run again.")


def main(args: argparse.Namespace) -> None:
    settings = read_settings(args.config, args.set)
    device = choose_device(args.device)
    sizes = {key: settings.get(key) if getattr(args, key) is None else getattr(args, key) for key in JOB_KEYS}
    missing = [key for key, value in sizes.items() if value is None]
    if missing:
        raise UserError(f"config {args.config}: lacks {', '.join(missing)}")
    if args.short_side is not None and args.long_side is None:  # keep the config's proportions
        sizes["long_side"] = round(args.short_side * settings["long_side"] / settings["short_side"])
    job = Job(
        photos=list_photos(args.images),
        generator=build_generator(settings["generator"]),
        backbone=args.backbone,
        weights=args.weights and str(args.weights.resolve()),
        device=device,
        **sizes,
    )
    workers = default_workers(device) if args.workers is None else args.workers
    print(f"{len(job.photos)} photos from {args.images} -> {job.shard_count} shards in {args.shards}", flush=True)
    # Drawn once the first photos are done: what the user got wrong shows before that, alone.
    with tqdm(total=len(job.photos), unit="photo", delay=0.1, mininterval=0.5, smoothing=0.1) as bar:
        rows = run(job, args.shards, workers, bar.update)
    print_summary(args.shards, rows)


if __name__ == "__main__":
    sys.exit(cli.run(main, build_parser()))
