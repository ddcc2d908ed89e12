"""`make cluster`: give every proposal of a shard set a pseudo class by spherical k-means on the seed features."""

import argparse
import sys

import numpy as np
from tqdm import tqdm

from pipelines import cli
from stage1_proposals.analysis.clusters import cluster_shards
from stage1_proposals.shards import ShardSet


def build_parser() -> argparse.ArgumentParser:
    parser = cli.Parser(prog="python -m pipelines.cluster", description=__doc__)
    parser.add_argument("--shards", required=True, type=cli.shard_directory, help="directory of the shard set")
    parser.add_argument("--classes", type=cli.at_least(1), default=80, help="number of pseudo classes (default: 80)")
    parser.add_argument("--seed", type=cli.at_least(0), default=0, help="of k-means and the sample it is run on")
    return parser


def main(args: argparse.Namespace) -> None:
    shards = ShardSet.open(args.shards)
    with tqdm(total=len(shards.entries), desc="clustering", unit="shard", delay=0.1) as bar:
        sizes = cluster_shards(shards, args.classes, args.seed, bar.update)
    low, median, high = np.quantile(sizes, (0, 0.5, 1)).astype(int)
    print(f"{args.shards}: {sizes.sum()} proposals in {args.classes} clusters of {low} to {high}, median {median}")
    print(f"`make pretrain SHARDS={args.shards} OPTS=--pseudo-classes` trains with them")


if __name__ == "__main__":
    sys.exit(cli.run(main, build_parser()))
