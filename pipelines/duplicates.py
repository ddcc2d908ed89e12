"""`make duplicates`: find images of a shard set that are nearly the same."""

import argparse
import sys
from pathlib import Path

import numpy as np
from tqdm import tqdm

from pipelines import cli
from stage1_proposals.analysis.duplicates import candidate_pairs, groups, measure
from stage1_proposals.common.errors import UserError
from stage1_proposals.common.files import write_json, writing
from stage1_proposals.shards import ShardReader, ShardSet

SHOWN = 20


def build_parser() -> argparse.ArgumentParser:
    parser = cli.Parser(prog="python -m pipelines.duplicates", description=__doc__)
    parser.add_argument("--shards", required=True, type=cli.shard_directory, help="directory of the shard set")
    parser.add_argument(
        "--threshold",
        type=float,
        default=0.8,
        help="likeness from which images count as the same, 0.5 to 1 (default: 0.8); 1: no difference that shows",
    )
    parser.add_argument("--output", type=Path, help="JSON of all groups; default: duplicates.json beside the shards")
    return parser


def file_name(shards: ShardSet, position: int) -> str:
    """The file name of the set's image number `position`."""
    shard, row = shards.locate(position)
    return ShardReader(shards.shard_paths[shard]).read(row).file_name


def main(args: argparse.Namespace) -> None:
    if not 0.5 <= args.threshold <= 1:
        raise UserError(f"--threshold {args.threshold}: use 0.5 to 1")
    shards = ShardSet.open(args.shards)
    with tqdm(desc="comparing images", unit=" shards read", delay=0.1) as bar:
        candidates = candidate_pairs(shards, args.threshold, bar.update)
    likenesses = measure(shards, tqdm(candidates, desc="comparing proposals", unit="pair", delay=0.1))
    pairs = [pair for pair in likenesses if pair.likeness >= args.threshold]
    found = groups(pairs)
    names = {position: file_name(shards, position) for group in found for position in group}
    result = {
        "threshold": args.threshold,
        "groups": [[names[position] for position in group] for group in found],
        "pairs": [[names[pair.first], names[pair.second], pair.likeness] for pair in pairs],
    }
    path = args.output or args.shards / "duplicates.json"
    with writing(path):
        write_json(path, result)
    print(f"{len(found)} groups of near-duplicates with {len(names)} of {shards.image_count} images: {path}")
    for group in result["groups"][:SHOWN]:
        print(f"  {', '.join(map(cli.on_one_line, group))}")
    if len(found) > SHOWN:
        print(f"  ... and {len(found) - SHOWN} more")
    empty = sum(int((np.diff(reader.column("images/proposals_begin")) == 0).sum()) for reader in shards.readers())
    if empty:
        print(f"{empty} images without proposals were not compared")


if __name__ == "__main__":
    sys.exit(cli.run(main, build_parser()))
