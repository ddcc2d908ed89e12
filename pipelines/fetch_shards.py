"""`make fetch`: bring a finished shard set from a URL to a directory, each shard verified."""

import argparse
import sys
from contextlib import closing

from tqdm import tqdm

from pipelines import cli
from stage1_proposals.jobs.store import LocalStore, fetch, open_store
from stage1_proposals.shards import ShardSet


def build_parser() -> argparse.ArgumentParser:
    parser = cli.Parser(prog="python -m pipelines.fetch_shards", description=__doc__)
    parser.add_argument("--shards", required=True, help="URL of the shard set, as s3://bucket/shards")
    parser.add_argument("--to", required=True, type=cli.shard_directory, help="directory for it")
    return parser


def main(args: argparse.Namespace) -> None:
    source, target = open_store(args.shards), LocalStore(args.to)
    with closing(tqdm(desc="fetching", unit=" shards", delay=0.1)) as bar:
        fetch(source, target, bar.update)
    shards = ShardSet.open(target.directory)
    print(f"{source} -> {target}: {len(shards.entries)} shards verified, {shards.image_count} images")


if __name__ == "__main__":
    sys.exit(cli.run(main, build_parser()))
