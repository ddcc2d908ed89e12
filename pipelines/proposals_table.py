"""`make table N=proposals`: class-agnostic scores of shard sets, made first where they are missing."""

import argparse
import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from pipelines import cli, proposals
from pipelines.text_table import format_table
from stage1_proposals.analysis.recall import KINDS, Labels, evaluate
from stage1_proposals.common.errors import UserError
from stage1_proposals.shards import ShardSet

DEFAULT_GENERATORS = ("saliency", "freemask", "random")
SCORES = ("AP", "AP50", "AR@20")
HEADING = ("generator", "backbone", "short side", "images", "per image", *(f"{k} {s}" for k in KINDS for s in SCORES))


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "One row per shard set: class-agnostic AP, AP50 and AR@20 of masks and boxes. Shard sets that are there are "
        "named with --shards; with --images and --work-dir, they are made first, or completed."
    )
    parser.add_argument("--labels", required=True, type=Path, help="COCO instance JSON of the images")
    parser.add_argument("--shards", nargs="+", type=cli.shard_directory, default=[], help="directories of shard sets")
    parser.add_argument("--work-dir", type=Path, help="make WORK_DIR/GENERATOR of --images, one set per generator")
    parser.add_argument(
        "--generators",
        nargs="+",
        metavar="GENERATOR",
        help=f"to make sets with: those of `pipelines.proposals`, or a COCO-format JSON of masks to import; "
        f"default: {', '.join(DEFAULT_GENERATORS)}, and the labels themselves",
    )
    proposals.add_image_options(parser, required=False)
    proposals.add_job_options(parser)
    parser.set_defaults(print_table=main)


def main(args: argparse.Namespace) -> None:
    if (args.images is None) != (args.work_dir is None) or not (args.shards or args.work_dir):
        raise UserError("name shard sets with --shards, or images with --images and where to make sets with --work-dir")
    labels = Labels.read(args.labels)
    directories = [*args.shards, *(make_shards(args) if args.work_dir else ())]
    rows = [row_of(ShardSet.open(directory), labels) for directory in directories]
    print(
        f"\nClass-agnostic, in percent: {labels.object_count} objects in {len(labels.images)} images of {labels.path}\n"
    )
    print(format_table(HEADING, rows, args.markdown, left=2))


def make_shards(args: argparse.Namespace) -> list[Path]:
    """Run stage 1 with every generator, going on where an earlier run stopped; the directories."""
    directories = []
    for name in args.generators or (*DEFAULT_GENERATORS, str(args.labels)):
        imported = name.endswith(".json")
        directory = args.work_dir / (Path(name).stem if imported else name)
        chosen = {
            "shards": directory,
            "generator": "import" if imported else name,
            "set": [f"file={json.dumps(str(Path(name).resolve()))}"] if imported else [],
            "config": None,
        }
        proposals.main(argparse.Namespace(**{**vars(args), **chosen}))
        directories.append(directory)
    return directories


def row_of(shards: ShardSet, labels: Labels) -> list[str]:
    """The cells under `HEADING`."""
    scores = evaluate(shards.records(), labels)
    count = shards.proposal_count
    return [
        describe(shards.request.generator),
        shards.backbone.name,
        str(shards.request.generator["short_side"]),
        str(shards.image_count),
        f"{count / shards.image_count:.1f}",
        *(f"{100 * scores[kind][name]:.2f}" for kind in KINDS for name in SCORES),
    ]


def describe(generator: Mapping[str, Any]) -> str:
    """The config that is closest to a generator's settings, and the settings that differ from it."""
    # PyTorch takes seconds to import; `--help` and mistyped options need not wait for it.
    from stage1_proposals.generators.registry import GENERATORS

    stated = {key: value for key, value in generator.items() if key not in ("short_side", "long_side", "sha256")}
    differences = {generator["name"]: {key: value for key, value in stated.items() if key != "name"}}
    for path in sorted(proposals.CONFIGS.glob("*.toml")):
        config = proposals.read_settings(path, None, [])["generator"]
        if config["name"] == generator["name"]:
            defaults = {field.name: field.default for field in fields(GENERATORS[config["name"]])}
            preset = json.loads(json.dumps(defaults | config))  # as a manifest holds them
            differences[path.stem] = {key: value for key, value in stated.items() if value != preset.get(key)}
    name = min(differences, key=lambda name: len(differences[name]))
    settings = differences[name]
    if "file" in settings:
        settings["file"] = Path(settings["file"]).name
    return " ".join([name, *(f"{key}={value}" for key, value in settings.items())])
