"""Which images to label next: a list of them, a contact sheet, and a labelme project with pre-labels."""

import os
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipelines import options
from pipelines.console import print_lines, progress
from pipelines.prediction_job import Failure, PredictionJob, PredictionRequest, find_run
from stage1_proposals.common.errors import UserError, quoted
from stage1_proposals.common.files import writing
from stage1_proposals.common.image_paths import image_finder, repeated_names
from stage1_proposals.common.label_files import ImageLabels, LabelmeWriter, NewFiles
from stage1_proposals.common.system import choose_device
from stage2_training import quiet_imports

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from stage1_proposals.analysis.selection import Candidates
    from stage1_proposals.shards import ImageRecord, ShardSet

SHEET = 100  # images on the contact sheet, at most


@click.command(cls=options.Command)
@options.shards_option
@options.image_root_option
@click.option("--count", type=options.POSITIVE, default=50, help="How many images to select (N=).")
@click.option("--labels", type=options.PATH, help="Labels that there are: COCO JSON, a labelme folder or data.yaml.")
@options.threshold_option
@click.option("--work-dir", type=options.PATH, help="Work directory of a run: also by what its model is least sure of.")
@click.option("--checkpoint", type=options.PATH, help="A file. Default: that of --work-dir. Alone: a file in a run.")
@options.score_option("Lowest score of an object of the run to pre-label.")
@click.option("--best", type=options.POSITIVE, default=10, help="Without a run: proposals of an image to pre-label.")
@click.option("--name", default="object", help="Without a run: name of the pre-labels' one class.")
@click.option("--out", type=options.PATH, default="selected", help="Folder to write to.")
@click.option("--workers", type=options.NON_NEGATIVE, help="Ray actors; 0: none. Default: one per GPU or core.")
@options.device_option
def command(
    shards: Path,
    image_root: Path | None,
    count: int,
    labels: Path | None,
    threshold: float,
    work_dir: Path | None,
    checkpoint: Path | None,
    score: float,
    best: int,
    name: str,
    out: Path,
    workers: int | None,
    device: str | None,
) -> None:
    """Select the images of a shard set to label next: images that differ and, with a run, that it is least sure of.

    The same command run again goes on where it was, and changes no label that has been corrected.
    """
    import numpy as np

    from stage1_proposals.analysis.prelabels import image_labels
    from stage1_proposals.analysis.selection import NEAREST, find_candidates, first_different
    from stage1_proposals.shards import ShardSet

    run = find_run(work_dir, checkpoint) if work_dir or checkpoint else None
    shard_set = ShardSet.open(shards)
    root = image_root or Path(shard_set.image_root)
    if not root.is_dir():
        raise UserError(f"{root}: the folder of the images is not there; say where it is with --image-root")
    if out.resolve().is_relative_to(root.resolve()):
        raise UserError(f"--out {out}: the output cannot lie among the images of {root}; choose another OUT")
    names = [file_name for reader in shard_set.readers() for file_name in reader.file_names()]
    labelled = find_labelled(labels, names, root) if labels else np.zeros(len(names), bool)
    with progress("clustering images", "shards") as advance:
        candidates = find_candidates(shard_set, labelled, count, advance)
    if run:
        candidates = candidates.best(NEAREST * count)
        seen = [names[position] for position in candidates.position]
        job, classes = predict(seen, root, run, checkpoint, out, workers, device)
        candidates = least_sure(candidates, names, job)
        readable = len(candidates.position)
        if readable < count:
            raise UserError(f"{root}: only {readable} of {len(seen)} images can be read; repair the others")
    order = candidates.best(len(names)).position.tolist()
    different, similar = first_different(shard_set, order, np.flatnonzero(labelled).tolist(), count, threshold)
    records = [read_record(shard_set, position) for position in different + similar]
    write_list(out / "images.txt", [record.file_name for record in records])
    print(f"{out / 'images.txt'}: {count} of {len(names) - labelled.sum()} images without labels")
    if similar:
        print(f"{len(similar)} of them are near-duplicates of labelled or selected ones: no others were left")
    if run:
        chosen = {record.file_name for record in records}
        read = (one for one in job.results() if isinstance(one, ImageLabels))
        found = {one.file_name: one.at_least(score) for one in read if one.file_name in chosen}
        prelabels = [found[record.file_name] for record in records]
    else:
        classes = [name]
        prelabels = [image_labels(record, best=best) for record in records]
    write_project(out, root, classes, prelabels)
    draw_sheet(out / "contact_sheet.png", root, records, prelabels, classes if run else [""])


def find_labelled(labels: Path, names: Sequence[str], root: Path) -> "NDArray[np.bool_]":
    """Which images of the set, known by their paths in `root`, are labelled: bool (N,).

    Raises:
        UserError: the labels cannot be read, or none of their images is in the set.
    """
    import numpy as np

    from stage2_training.labels.custom import labelled_images

    paths, left_out = labelled_images(str(labels), root)
    print_lines(*left_out)
    find = image_finder({name: position for position, name in enumerate(names)}, repeated_names(paths))
    positions = {position for path in paths if (position := find(path)) is not None}
    if not positions:
        shown = ", ".join(map(quoted, [*paths[:1], *names[:1]]))
        raise UserError(f"labels {labels}: none of their images is in the shards; their names differ: {shown}")
    print_lines(f"{labels}: {len(positions)} of its {len(paths)} images are in the shards")
    labelled = np.zeros(len(names), bool)
    labelled[list(positions)] = True
    return labelled


def predict(
    names: Sequence[str],
    root: Path,
    work_dir: Path,
    checkpoint: Path | None,
    out: Path,
    workers: int | None,
    device: str | None,
) -> tuple[PredictionJob, Sequence[str]]:
    """Find the objects of images with the model of a run; returns the finished job, and the names of the classes.

    Raises:
        UserError: the run has no checkpoint, or as `PredictionJob.run`.
    """
    from stage1_proposals.analysis.selection import LEAST_SCORE
    from stage1_proposals.images.listing import ImageList, image_ids
    from stage1_proposals.jobs.ray_address import check_reachable

    if workers != 0:
        check_reachable(os.environ.get("RAY_ADDRESS", ""))
    device = choose_device(device, on_cluster=bool(os.environ.get("RAY_ADDRESS")) and workers != 0)
    with quiet_imports():
        from stage2_training.config.evaluation_config import class_names
        from stage2_training.runs.work_dir import WorkDir, find_checkpoint

    weights, config = find_checkpoint(checkpoint or work_dir).resolve(), WorkDir(work_dir).read_config()
    names = sorted(names)
    images = ImageList(root.resolve(), tuple(names), image_ids(names))
    request = PredictionRequest.of(images, work_dir, weights, LEAST_SCORE, config.get("tiles", 0))
    print_lines(f"{len(names)} images to choose from: {weights}, {device}")
    job = PredictionJob(request, work_dir, weights, out.resolve(), device, retry_failed=True)
    with progress("finding objects", "images", len(names)) as advance:
        job.run(images, workers, advance)
    return job, class_names(config)


def least_sure(candidates: "Candidates", names: Sequence[str], job: PredictionJob) -> "Candidates":
    """The candidates that could be read, those first of whose objects the model of a run is least sure."""
    from stage1_proposals.analysis.selection import uncertainty

    scores: dict[str, Sequence[float]] = {}
    for found in job.results():
        if isinstance(found, Failure):
            print_lines(f"left out: {quoted(found.file_name)}: {found.reason}")
        else:
            scores[found.file_name] = found.scores
    rows = [row for row, position in enumerate(candidates.position) if names[position] in scores]
    readable = candidates.take(rows)
    return replace(readable, preference=uncertainty([scores[names[position]] for position in readable.position]))


def read_record(shard_set: "ShardSet", position: int) -> "ImageRecord":
    """The record of an image, by its position in the set."""
    shard, row = shard_set.locate(position)
    with closing(shard_set.reader(shard)) as reader:
        return reader.read(row)


def write_list(path: Path, names: Sequence[str]) -> None:
    """Write the list of the images, the first to label first.

    Raises:
        UserError: there is a list of other images, or it cannot be written.
    """
    files = NewFiles()
    files.write(path, (f"{name}\n" for name in names))
    if files.kept:
        raise UserError(f"{path}: lists another selection; choose another OUT (--out)")


def write_project(out: Path, root: Path, classes: Sequence[str], prelabels: Sequence[ImageLabels]) -> None:
    """Write a folder that labelme opens: a link to each image, and beside it its pre-labels.

    Raises:
        UserError: a file cannot be written.
    """
    files = NewFiles()
    writer = LabelmeWriter(out, root, classes, files)
    for labels in prelabels:
        writer.write(labels)
        link = out / "labelme" / labels.file_name
        if not os.path.lexists(link):
            with writing(link):
                link.symlink_to((root / labels.file_name).resolve())
    objects = sum(len(labels.counts) for labels in prelabels)
    print_lines(f"{out / 'labelme'}: {objects} pre-labels; `labelme {out / 'labelme'}` opens them")
    if files.kept:
        print_lines(f"{len(files.kept)} label files stay as they are, {files.kept[0]} first: they hold other labels")


def draw_sheet(
    path: Path,
    root: Path,
    records: "Sequence[ImageRecord]",
    prelabels: Sequence[ImageLabels],
    titles: Sequence[str],
) -> None:
    """Draw the first `SHEET` images with their pre-labels.

    Args:
        titles: of the classes; a pre-label of a class without one has neither its title nor its score written.

    Raises:
        UserError: the picture cannot be written.
    """
    from stage1_proposals.analysis.samples import read_record_image
    from stage1_proposals.common.drawing import contact_sheet, draw_named
    from stage1_proposals.common.run_lengths import decode
    from stage1_proposals.images.decode import ImageError

    tiles = []
    for record, labels in zip(records[:SHEET], prelabels, strict=False):
        try:
            pixels = read_record_image(record, root)
        except ImageError as error:
            print_lines(f"not drawn: {record.file_name} {error}")
            continue
        masks = (decode([counts], labels.size)[0] for counts in labels.counts)
        objects = zip(labels.classes, labels.scores, strict=True)
        captions = [f"{titles[index]} {score:.2f}" if titles[index] else "" for index, score in objects]
        tiles.append(draw_named(pixels, masks, captions))
    if tiles:
        with writing(path):
            contact_sheet(tiles).save(path)
        print(f"contact sheet: {path} ({len(tiles)} images)")
