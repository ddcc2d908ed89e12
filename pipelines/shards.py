"""Looking at finished shard sets, copying them, writing label files, finding duplicates and clustering proposals."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipelines import options
from pipelines.console import format_table, print_lines, progress, track
from stage1_proposals.common.errors import UserError
from stage1_proposals.common.files import write_json, writing

if TYPE_CHECKING:
    from stage1_proposals.analysis.recall import Labels
    from stage1_proposals.shards import ShardSet

GROUPS_SHOWN = 20
FORMATS = ("coco", "labelme", "yolo")  # the keys of `label_files.WRITERS`, whose import takes time


def proposal_name(text: str) -> tuple[int, int]:
    """The type of an option that names a proposal by image and row: `139:0`."""
    try:
        image_id, row = text.split(":")
        return int(image_id), int(row)
    except ValueError:
        raise UserError(f"--similar {text!r}: write it as IMAGE_ID:ROW, two integers") from None


@click.command(cls=options.Command)
@options.shards_option
@options.image_root_option
@click.option("--sheet", type=options.NON_NEGATIVE, default=20, help="Images on the contact sheet; 0: no sheet.")
@options.seed_option("Decides which images are drawn.")
@click.option("--out", type=options.PATH, help="The picture. Default: contact_sheet.png or similar.png by the shards.")
@click.option("--similar", type=proposal_name, metavar="IMAGE_ID:ROW", help="Draw a proposal and those most like it.")
@click.option("--labels", type=options.PATH, help="COCO instance JSON of the same images: print AP and recall.")
def inspect(
    shards: Path,
    image_root: Path | None,
    sheet: int,
    seed: int,
    out: Path | None,
    similar: tuple[int, int] | None,
    labels: Path | None,
) -> None:
    """Verify a shard set, print what it holds, draw a contact sheet."""
    from PIL import Image

    from stage1_proposals.analysis.recall import Labels
    from stage1_proposals.analysis.samples import draw_sample, draw_similar
    from stage1_proposals.analysis.statistics import describe_shards
    from stage1_proposals.common.drawing import contact_sheet
    from stage1_proposals.shards import ShardSet, verify_set

    picture = out or shards / ("similar.png" if similar else "contact_sheet.png")
    if picture.suffix.lower() not in Image.registered_extensions():
        raise UserError(f"--out {picture}: pictures are written as .png or .jpg")
    labelled = labels and Labels.read(labels)
    shard_set = ShardSet.open(shards)
    root = image_root or Path(shard_set.image_root)
    if similar:
        tiles = draw_similar(shard_set, root, *similar, sheet, print_lines)
        with writing(picture):
            contact_sheet(tiles).save(picture)
        print(f"similar proposals: {picture} ({len(tiles)} tiles)")
        return
    with progress("verifying", "shards", len(shard_set.entries)) as advance:
        verify_set(shard_set, advance)
    counts = f"{shard_set.image_count} images, {shard_set.proposal_count} proposals"
    print(f"{shards}: {len(shard_set.entries)} shards verified, {counts}")
    print_lines(*describe_shards(shard_set))
    if labelled:
        print_recall([shard_set], labelled)
    if shard_set.image_count and sheet:
        tiles = draw_sample(shard_set, root, sheet, seed, print_lines)
        with writing(picture):
            contact_sheet(tiles).save(picture)
        print(f"contact sheet: {picture} ({len(tiles)} images)")


@click.command(cls=options.Command)
@options.shards_option
@options.image_root_option
@options.format_option(FORMATS, default="labelme")
@options.score_option("Lowest score of a proposal to write.", default=0.0)
@click.option("--best", type=options.POSITIVE, help="Proposals of an image to write, at most. Default: all.")
@click.option("--name", default="object", help="Name of the one class.")
@click.option("--out", type=options.PATH, default="prelabels", help="Folder to write to.")
def prelabel(
    shards: Path, image_root: Path | None, format: tuple[str, ...], score: float, best: int | None, name: str, out: Path
) -> None:
    """Write the proposals of a shard set as label files, to be corrected in a labelling tool."""
    from stage1_proposals.analysis.prelabels import image_labels
    from stage1_proposals.common.label_files import WRITERS, NewFiles
    from stage1_proposals.shards import ShardSet

    shard_set = ShardSet.open(shards)
    root = image_root or Path(shard_set.image_root)
    if format != ("coco",) and not root.is_dir():
        raise UserError(f"{root}: the folder of the images is not there; say where it is with --image-root")
    highest = max((float(reader.column("proposals/score").max(initial=0)) for reader in shard_set.readers()), default=0)
    if score > highest and shard_set.proposal_count:  # empty label files would stand in the way of a second try
        raise UserError(
            f"no proposal of {shards} has a score of {score:g} or more, the highest is {highest:.3g}: choose a lower "
            f"--score (SCORE=); scores of generators differ, and --best takes the best of each image whatever they are"
        )
    files, masks = NewFiles(), 0
    writers = [WRITERS[word](out, root, [name], files) for word in format]
    for record in track("writing labels", "images", shard_set.records(), shard_set.image_count):
        labels = image_labels(record, score, best)
        masks += len(labels.counts)
        for writer in writers:
            writer.write(labels)
    for writer in writers:
        writer.close()
    print(f"{out}: {masks} proposals of {shard_set.image_count} images as {', '.join(format)}")
    print(f"{files.written} files written, {files.unchanged} were there already")
    if files.kept:
        print_lines(
            f"{len(files.kept)} files that hold other labels stay as they are, {files.kept[0]} first; to have them "
            f"written anew, remove them and run the command again"
        )


@click.command(cls=options.Command)
@click.option("--shards", required=True, help="URL of the shard set, such as s3://bucket/shards.")
@click.option("--to", default="shards", type=options.SHARD_DIRECTORY, help="Directory to copy it to.")
def fetch(shards: str, to: Path) -> None:
    """Copy a finished shard set from a URL to a directory, verifying each shard."""
    from stage1_proposals.jobs import store
    from stage1_proposals.shards import ShardSet

    source, target = store.open_store(shards), store.LocalStore(to)
    with progress("fetching", "shards") as advance:
        store.fetch(source, target, advance)
    shard_set = ShardSet.open(target.directory)
    print(f"{source} -> {target}: {len(shard_set.entries)} shards verified, {shard_set.image_count} images")


@click.command(cls=options.Command)
@options.shards_option
@options.threshold_option
@click.option("--out", type=options.PATH, help="JSON of all groups. Default: duplicates.json in the shards' directory.")
def duplicates(shards: Path, threshold: float, out: Path | None) -> None:
    """Find images of a shard set that are nearly the same."""
    from stage1_proposals.analysis.duplicates import candidate_pairs, count_empty, file_names, groups, measure
    from stage1_proposals.shards import ShardSet

    shard_set = ShardSet.open(shards)
    with progress("comparing images", "shards") as advance:
        candidates = candidate_pairs(shard_set, threshold, advance)
    measured = measure(shard_set, track("comparing proposals", "pairs", candidates, len(candidates)))
    pairs = [pair for pair in measured if pair.similarity >= threshold]
    names = file_names(shard_set, pairs)
    named_groups = [[names[position] for position in group] for group in groups(pairs)]
    named_pairs = [[names[pair.first], names[pair.second], pair.similarity] for pair in pairs]
    path = out or shards / "duplicates.json"
    with writing(path):
        write_json(path, {"threshold": threshold, "groups": named_groups, "pairs": named_pairs})
    print(f"{len(named_groups)} groups of near-duplicates with {len(names)} of {shard_set.image_count} images: {path}")
    print_lines(*(f"  {', '.join(group)}" for group in named_groups[:GROUPS_SHOWN]))
    if len(named_groups) > GROUPS_SHOWN:
        print(f"  ... and {len(named_groups) - GROUPS_SHOWN} more")
    if empty := count_empty(shard_set):
        print(f"{empty} images without proposals were not compared")


@click.command(cls=options.Command)
@options.shards_option
@click.option("--classes", type=options.POSITIVE, default=80, help="Number of pseudo classes.")
@options.seed_option("Seed of k-means and of the sample it is run on.")
def cluster(shards: Path, classes: int, seed: int) -> None:
    """Give every proposal of a shard set a pseudo class by spherical k-means on the seed features."""
    import numpy as np

    from stage1_proposals.analysis.clusters import cluster_shards
    from stage1_proposals.shards import ShardSet

    shard_set = ShardSet.open(shards)
    with progress("clustering", "shards", len(shard_set.entries)) as advance:
        sizes = cluster_shards(shard_set, classes, seed, advance)
    low, median, high = np.quantile(sizes, (0, 0.5, 1)).astype(int)
    print(f"{shards}: {sizes.sum()} proposals in {classes} clusters of {low} to {high}, median {median}")
    print(f"`make pretrain SHARDS={shards} OPTS=--pseudo-classes` trains with them")


@click.command(cls=options.Command)
@click.option("--labels", required=True, type=options.PATH, help="COCO instance JSON of the images.")
@options.words_option("--shards", required=True, type=options.SHARD_DIRECTORY, help="Directories of shard sets.")
@click.option("--markdown", is_flag=True, help="Print Markdown.")
def recall(labels: Path, shards: tuple[Path, ...], markdown: bool) -> None:
    """Print class-agnostic AP and AR of masks and boxes, one row per shard set."""
    from stage1_proposals.analysis.recall import Labels
    from stage1_proposals.shards import ShardSet

    labelled = Labels.read(labels)
    print_recall([ShardSet.open(directory) for directory in shards], labelled, markdown)


def print_recall(shard_sets: "Sequence[ShardSet]", labels: "Labels", markdown: bool = False) -> None:
    """Print a table of how well the proposals of each shard set find labelled objects."""
    from stage1_proposals.analysis.recall import HEADING, NAMES, table_row

    rows = [table_row(shard_set, labels) for shard_set in shard_sets]
    print(f"\n{labels.describe()}\n")
    print(format_table(HEADING, rows, markdown, left=NAMES))
