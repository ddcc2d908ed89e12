"""Looking at finished shard sets, copying them, finding duplicates in them and clustering their proposals."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipelines import options
from pipelines.console import format_table, one_line, progress, track
from stage1_proposals.common.errors import UserError
from stage1_proposals.common.files import write_json, writing

if TYPE_CHECKING:
    from stage1_proposals.shards import ShardSet

GROUPS_SHOWN = 20


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
@click.option("--export", nargs=2, metavar="coco FILE", help="Write the proposals as COCO JSON.")
@click.option("--labels", type=options.PATH, help="COCO instance JSON of the same images: print AP and recall.")
def inspect(
    shards: Path,
    image_root: Path | None,
    sheet: int,
    seed: int,
    out: Path | None,
    similar: tuple[int, int] | None,
    export: tuple[str, str] | None,
    labels: Path | None,
) -> None:
    """Verify a shard set, print what it holds, draw a contact sheet."""
    from PIL import Image

    from stage1_proposals.analysis.coco_export import to_coco
    from stage1_proposals.analysis.recall import SCORES, Labels, evaluate
    from stage1_proposals.analysis.statistics import distributions
    from stage1_proposals.shards import ShardSet

    if export and export[0] != "coco":
        raise UserError(f"--export {export[0]}: only coco is known")
    picture = out or shards / ("similar.png" if similar else "contact_sheet.png")
    if picture.suffix.lower() not in Image.registered_extensions():
        raise UserError(f"--out {picture}: pictures are written as .png or .jpg")
    labelled = labels and Labels.read(labels)
    shard_set = ShardSet.open(shards)
    root = image_root or Path(shard_set.image_root)
    if similar:
        draw_similar(shard_set, root, *similar, sheet, picture)
        return
    verify(shard_set)
    failures = [failure for reader in shard_set.readers() for failure in reader.failures()]
    counts = f"{shard_set.image_count} images, {shard_set.proposal_count} proposals"
    print(f"{shards}: {len(shard_set.entries)} shards verified, {counts}")
    generator = shard_set.request.generator["name"]
    print(f"made by {generator} on {shard_set.backbone.name}, D = {shard_set.feature_dim}")
    clustered = sum(reader.clusters is not None for reader in shard_set.readers())
    if clustered:
        print(f"clusters in {clustered} of {len(shard_set.entries)} shards")
    print(f"{len(failures)} images failed" + (":" if failures else ""))
    for name, reason in failures:
        print(f"  {one_line(name)}: {reason}")
    print(f"{'':<16} {'min':>8} {'25 %':>8} {'median':>8} {'75 %':>8} {'max':>8}  histogram, min to max")
    for distribution in distributions(shard_set.records()):
        print(distribution.line())
    if export:
        path = Path(export[1])
        with writing(path):
            write_json(path, to_coco(shard_set.records()))
        print(f"COCO JSON: {path}")
    if labelled:
        print(f"{'class-agnostic, %':<16} " + " ".join(f"{name:>8}" for name in SCORES))
        for kind, scores in evaluate(shard_set.records(), labelled).items():
            print(f"{kind:<17} " + " ".join(f"{100 * scores[name]:8.1f}" for name in SCORES))
    if shard_set.image_count and sheet:
        draw_sheet(shard_set, root, sheet, seed, picture)


def verify(shards: "ShardSet") -> None:
    """Verify every shard against its checksums and the manifest; a `ShardError` names all damaged ones."""
    from stage1_proposals.shards import ShardError, verify_shard

    faults = []
    entries = list(zip(shards.entries, shards.shard_paths, strict=True))
    for entry, path in track(entries, "verifying", "shards", len(entries)):
        try:
            if verify_shard(path) != entry:
                faults.append(f"{path}: valid, but its hash differs from the manifest; run `make proposals` again")
        except ShardError as error:
            faults.append(str(error))
    if faults:
        raise ShardError(f"{len(faults)} of {len(entries)} shards are damaged: {'; '.join(faults)}")


def draw_sheet(shards: "ShardSet", root: Path, count: int, seed: int, path: Path) -> None:
    """Draw `count` images chosen by seed with their proposals."""
    from stage1_proposals.analysis.samples import sample
    from stage1_proposals.common.drawing import contact_sheet, draw_proposals
    from stage1_proposals.images.decode import ImageError

    tiles = []
    for record, image in sample(shards, root, count, seed):
        if isinstance(image, ImageError):
            print(f"not drawn: {one_line(record.file_name)} {image}")
        else:
            tiles.append(draw_proposals(image, record.masks(), record.seed))
    if not tiles:
        raise UserError(f"no sampled image was found unchanged under {root}; pass their folder as --image-root")
    with writing(path):
        contact_sheet(tiles).save(path)
    print(f"contact sheet: {path} ({len(tiles)} images)")


def draw_similar(shards: "ShardSet", root: Path, image_id: int, row: int, count: int, path: Path) -> None:
    """Print and draw a proposal and those most similar to it, `count` in all, each alone in its image."""
    from stage1_proposals.analysis.index import similar_proposals
    from stage1_proposals.analysis.samples import read_record_image
    from stage1_proposals.common.drawing import CAPTION, TILE, caption, contact_sheet, draw_proposals
    from stage1_proposals.images.decode import ImageError

    query, neighbours = similar_proposals(shards, image_id, row, max(0, count - 1))
    tiles = []
    for proposal in (query, *neighbours):
        record = shards.reader(proposal.shard).read(proposal.image)
        name = f"{record.image_id}:{proposal.row}"
        print(f"{proposal.cosine:7.4f}  {name:<12} {one_line(record.file_name)}")
        try:
            only = record.only(proposal.row)
            tile = draw_proposals(read_record_image(record, root), only.masks(), only.seed, TILE - CAPTION)
        except ImageError as error:
            if proposal is query:
                raise UserError(f"{root / record.file_name} {error}; say where it is with --image-root") from error
            print(f"not drawn: {one_line(record.file_name)} {error}")
            continue
        tiles.append(caption(tile, f"{name}  " + ("the query" if proposal is query else f"{proposal.cosine:.3f}")))
    with writing(path):
        contact_sheet(tiles).save(path)
    print(f"similar proposals: {path} ({len(tiles)} tiles)")


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
@click.option("--threshold", type=float, default=0.8, help="Similarity from which images are duplicates, 0.5 to 1.")
@click.option("--out", type=options.PATH, help="JSON of all groups. Default: duplicates.json in the shards' directory.")
def duplicates(shards: Path, threshold: float, out: Path | None) -> None:
    """Find images of a shard set that are nearly the same."""
    import numpy as np

    from stage1_proposals.analysis.duplicates import candidate_pairs, groups, measure
    from stage1_proposals.shards import ShardSet

    if not 0.5 <= threshold <= 1:
        raise UserError(f"--threshold {threshold}: use 0.5 to 1")
    shard_set = ShardSet.open(shards)
    with progress("comparing images", "shards") as advance:
        candidates = candidate_pairs(shard_set, threshold, advance)
    measured = measure(shard_set, track(candidates, "comparing proposals", "pairs", len(candidates)))
    pairs = [pair for pair in measured if pair.similarity >= threshold]

    def file_name(position: int) -> str:
        shard, row = shard_set.locate(position)
        return shard_set.reader(shard).read(row).file_name

    groups_found = groups(pairs)
    names = {position: file_name(position) for group in groups_found for position in group}
    named_groups = [[names[position] for position in group] for group in groups_found]
    named_pairs = [[names[pair.first], names[pair.second], pair.similarity] for pair in pairs]
    path = out or shards / "duplicates.json"
    with writing(path):
        write_json(path, {"threshold": threshold, "groups": named_groups, "pairs": named_pairs})
    print(f"{len(named_groups)} groups of near-duplicates with {len(names)} of {shard_set.image_count} images: {path}")
    for group in named_groups[:GROUPS_SHOWN]:
        print(f"  {', '.join(map(one_line, group))}")
    if len(named_groups) > GROUPS_SHOWN:
        print(f"  ... and {len(named_groups) - GROUPS_SHOWN} more")
    empty = sum(int((np.diff(reader.column("images/proposals_begin")) == 0).sum()) for reader in shard_set.readers())
    if empty:
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
    """Print class-agnostic AP, AP50 and AR@20 of masks and boxes, one row per shard set."""
    from stage1_proposals.analysis.recall import KINDS, Labels, evaluate
    from stage1_proposals.shards import ShardSet

    columns = [(kind, score) for kind in KINDS for score in ("AP", "AP50", "AR@20")]
    labelled, rows = Labels.read(labels), []
    for shard_set in map(ShardSet.open, shards):
        scores = evaluate(shard_set.records(), labelled)
        generator = shard_set.request.generator
        facts = [describe_generator(generator), shard_set.backbone.name, str(generator["short_side"])]
        counts = [str(shard_set.image_count), f"{shard_set.proposal_count / shard_set.image_count:.1f}"]
        rows.append(facts + counts + [f"{100 * scores[kind][name]:.2f}" for kind, name in columns])
    heading = ("generator", "backbone", "short side", "images", "per image", *map(" ".join, columns))
    objects, images = labelled.object_count, len(labelled.images)
    print(f"\nClass-agnostic, in percent: {objects} objects in {images} images of {labels}\n")
    print(format_table(heading, rows, markdown, left=2))


def describe_generator(generator: Mapping[str, Any]) -> str:
    """A generator's name and those of its settings that are not its defaults."""
    from dataclasses import fields

    from stage1_proposals.generators.registry import GENERATORS, find_generator

    name = generator["name"]
    defaults = {field.name: field.default for field in fields(find_generator(name))} if name in GENERATORS else {}
    defaults = json.loads(json.dumps(defaults, default=str))  # tuples become lists, as in the manifest
    shown = {
        key: Path(value).name if key == "file" else value
        for key, value in generator.items()
        if key not in ("name", "short_side", "long_side", "sha256") and (key not in defaults or value != defaults[key])
    }
    return " ".join([name, *(f"{key}={value}" for key, value in shown.items())])
