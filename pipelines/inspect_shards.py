"""`make inspect`: verify a shard set, print what it holds, draw a contact sheet."""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from pipelines import cli
from stage1_proposals.analysis.index import similar_proposals
from stage1_proposals.analysis.recall import SCORES, Labels, evaluate
from stage1_proposals.analysis.statistics import distributions, image_of, sample, to_coco
from stage1_proposals.common.drawing import CAPTION, TILE, caption, contact_sheet, draw_proposals
from stage1_proposals.common.errors import UserError
from stage1_proposals.common.files import write_json, writing
from stage1_proposals.images.decode import ImageError
from stage1_proposals.shards import ImageRecord, ShardError, ShardReader, ShardSet, verify_shard


def build_parser() -> argparse.ArgumentParser:
    parser = cli.Parser(prog="python -m pipelines.inspect_shards", description=__doc__)
    parser.add_argument("--shards", required=True, type=cli.shard_directory, help="directory of the shard set")
    parser.add_argument(
        "--sheet",
        type=Path,
        help="picture; default: contact_sheet.png, or similar.png with --similar, beside the shards",
    )
    parser.add_argument("--images", type=cli.at_least(0), default=20, help="images on the contact sheet; 0: none")
    parser.add_argument(
        "--similar",
        type=image_and_row,
        metavar="IMAGE_ID:ROW",
        help="instead, draw the proposals most similar to this one: as many tiles as --images, it being the first",
    )
    parser.add_argument("--seed", type=cli.at_least(0), default=0, help="which images are drawn")
    parser.add_argument("--image-root", type=Path, help="where the images are now, if they moved")
    parser.add_argument("--export", nargs=2, metavar=("coco", "FILE"), help="write the proposals as COCO JSON")
    parser.add_argument("--labels", type=Path, help="COCO instance JSON of the same images: print AP and recall")
    return parser


def image_and_row(text: str) -> tuple[int, int]:
    """An argparse type: `139:0`."""
    image_id, row = text.split(":")
    return int(image_id), int(row)


image_and_row.__name__ = "IMAGE_ID:ROW"


def verify(shards: ShardSet) -> None:
    """Verify every shard against its checksums and the manifest.

    Raises:
        ShardError: naming every damaged shard and its first fault.
    """
    faults = []
    for entry, path in zip(tqdm(shards.entries, desc="verifying", unit="shard"), shards.shard_paths, strict=True):
        try:
            if verify_shard(path) != entry:
                faults.append(f"{path}: sound, but not the shard the manifest names; run `make proposals` again")
        except ShardError as error:
            faults.append(str(error))
    if faults:
        raise ShardError(f"{len(faults)} of {len(shards.entries)} shards are damaged: {'; '.join(faults)}")


def chosen_images(
    shards: ShardSet, root: Path, count: int, seed: int
) -> Iterator[tuple[ImageRecord, NDArray[np.uint8]]]:
    """`count` images (H, W, 3) chosen by seed and their records; without those that have gone or changed their size.

    Raises:
        UserError: none of them is left.
    """
    found = False
    for record, image in sample(shards, root, count, seed):
        if isinstance(image, ImageError):
            print(f"not drawn: {cli.on_one_line(record.file_name)} {image}")
            continue
        found = True
        yield record, image
    if not found:
        raise UserError(f"none of the images chosen is under {root} as it was; say where they are with --image-root")


def draw_sheet(shards: ShardSet, root: Path, count: int, seed: int, path: Path) -> None:
    """Draw `count` images chosen by seed; images that have gone or changed their size since are left out.

    Raises:
        UserError: none of them can be drawn, or the sheet cannot be written.
    """
    tiles = [
        draw_proposals(image, record.masks(), record.seed) for record, image in chosen_images(shards, root, count, seed)
    ]
    with writing(path):
        contact_sheet(tiles).save(path)
    print(f"contact sheet: {path} ({len(tiles)} images)")


def draw_similar(shards: ShardSet, root: Path, image_id: int, row: int, count: int, path: Path) -> None:
    """Print and draw a proposal and those most similar to it, `count` in all, each alone in its image.

    Raises:
        UserError: no such proposal, its image is not there, or the picture cannot be written.
    """
    query, nearest = similar_proposals(shards, image_id, row, max(0, count - 1))
    tiles = []
    for found in (query, *nearest):
        record = ShardReader(shards.shard_paths[found.shard]).read(found.image).only(found.row)
        name = f"{record.image_id}:{found.row}"
        print(f"{found.cosine:7.4f}  {name:<12} {cli.on_one_line(record.file_name)}")
        try:
            tile = draw_proposals(image_of(record, root), record.masks(), record.seed, TILE - CAPTION)
        except ImageError as error:
            if found is query:
                raise UserError(f"{root / record.file_name} {error}; say where it is with --image-root") from error
            print(f"not drawn: {cli.on_one_line(record.file_name)} {error}")
            continue
        tiles.append(caption(tile, f"{name}  " + ("the query" if found is query else f"{found.cosine:.3f}")))
    with writing(path):
        contact_sheet(tiles).save(path)
    print(f"similar proposals: {path} ({len(tiles)} tiles)")


def main(args: argparse.Namespace) -> None:
    if args.export and args.export[0] != "coco":
        raise UserError(f"--export {args.export[0]}: only coco is known")
    sheet = args.sheet or args.shards / ("similar.png" if args.similar else "contact_sheet.png")
    if sheet.suffix.lower() not in Image.registered_extensions():
        raise UserError(f"--sheet {sheet}: pictures are written as .png or .jpg")
    labels = args.labels and Labels.read(args.labels)
    shards = ShardSet.open(args.shards)
    root = args.image_root or Path(shards.image_root)
    if args.similar:
        image_id, row = args.similar
        draw_similar(shards, root, image_id, row, args.images, sheet)
        return
    verify(shards)
    failures = [failure for reader in shards.readers() for failure in reader.failures()]
    proposals = shards.proposal_count
    print(f"{args.shards}: {len(shards.entries)} shards verified, {shards.image_count} images, {proposals} proposals")
    print(f"made by {shards.request.generator['name']} on {shards.backbone.name}, D = {shards.feature_dim}")
    clustered = sum(reader.clusters is not None for reader in shards.readers())
    if clustered:
        print(f"clusters in {clustered} of {len(shards.entries)} shards")
    print(f"{len(failures)} images failed" + (":" if failures else ""))
    for name, reason in failures:
        print(f"  {cli.on_one_line(name)}: {reason}")
    print(f"{'':<16} {'min':>8} {'25 %':>8} {'median':>8} {'75 %':>8} {'max':>8}  histogram, min to max")
    for distribution in distributions(shards.records()):
        print(distribution.line())
    if args.export:
        with writing(Path(args.export[1])):
            write_json(Path(args.export[1]), to_coco(shards.records()))
        print(f"COCO JSON: {args.export[1]}")
    if labels:
        print(f"{'class-agnostic, %':<16} " + " ".join(f"{name:>8}" for name in SCORES))
        for kind, scores in evaluate(shards.records(), labels).items():
            print(f"{kind:<17} " + " ".join(f"{100 * scores[name]:8.1f}" for name in SCORES))
    if shards.image_count and args.images > 0:
        draw_sheet(shards, root, args.images, args.seed, sheet)


if __name__ == "__main__":
    sys.exit(cli.run(main, build_parser()))
