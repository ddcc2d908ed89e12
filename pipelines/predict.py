"""Images in, the objects that a trained detector finds in them out: label files, masks and pictures."""

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import click

from pipelines import options
from pipelines.console import print_lines, progress, track
from pipelines.prediction_job import Failure, PredictionJob, PredictionRequest, find_run
from stage1_proposals.common.errors import UserError, quoted
from stage1_proposals.common.files import write_text
from stage1_proposals.common.label_files import CocoWriter, LabelPaths, LabelWriter, NewFiles
from stage1_proposals.common.system import choose_device, keep_freed_memory
from stage2_training import quiet_imports
from stage2_training.config.run_settings import tile_side

FORMATS = ("coco", "labelme", "yolo", "masks", "pictures")  # the keys of `RESULT_WRITERS`, whose import takes time
FAILURES_SHOWN = 20
TILES_FROM = 2.0  # times the usual side: from there on, a line recommends tiles


@click.command(cls=options.Command)
@click.option("--images", required=True, type=options.PATH, help="Folder, COCO JSON or list of paths.")
@click.option("--image-root", type=options.PATH, help="Folder that the paths of a JSON or text file are relative to.")
@click.option("--work-dir", type=options.PATH, help="Work directory of a run.")
@click.option("--checkpoint", type=options.PATH, help="A file. Default: that of --work-dir. Alone: a file in a run.")
@click.option("--last", is_flag=True, help="The last checkpoint in place of that of the best validation AP.")
@click.option("--out", type=options.PATH, default="predictions", help="Folder to write to.")
@options.score_option("Lowest score of an object; 0: all that the detector finds.")
@options.format_option(FORMATS, default="coco,labelme,pictures")
@click.option("--tiles", help="See large images in tiles, too: off, auto or pixels. Default: as the run was trained.")
@click.option("--workers", type=options.NON_NEGATIVE, help="Ray actors; 0: none. Default: one per GPU or core.")
@options.device_option
@click.option("--retry-failed", is_flag=True, help="Read the images that could not be read once more.")
def command(
    images: Path,
    image_root: Path | None,
    work_dir: Path | None,
    checkpoint: Path | None,
    last: bool,
    out: Path,
    score: float,
    format: tuple[str, ...],
    tiles: str | None,
    workers: int | None,
    device: str | None,
    retry_failed: bool,
) -> None:
    """Find the objects of images with a trained detector and write them as label files, masks or pictures.

    Finished blocks of images are kept; the same command run again makes the others.
    """
    from stage1_proposals.images.listing import list_images
    from stage1_proposals.jobs.ray_address import check_reachable

    work_dir, tile = find_run(work_dir, checkpoint), tile_side(tiles)
    if images.is_dir() and out.resolve().is_relative_to(images.resolve()):
        raise UserError(f"--out {out}: the output cannot lie among the images of {images}; choose another OUT")
    if workers != 0:
        check_reachable(os.environ.get("RAY_ADDRESS", ""))
    listed = list_images(images, image_root)
    if {*format} != {"coco"}:
        check_stems(listed.names, out)
    device = choose_device(device, on_cluster=bool(os.environ.get("RAY_ADDRESS")) and workers != 0)
    keep_freed_memory()
    os.environ.setdefault("MALLOC_ARENA_MAX", "1")  # for the same reason as in `proposals`
    with quiet_imports():
        from stage2_training.config.evaluation_config import category_ids, class_names, image_side
        from stage2_training.runs.work_dir import WorkDir, find_checkpoint
        from stage2_training.saliency_prompt.detectors import require_masks

    out = out.resolve()
    weights, config = find_checkpoint(checkpoint or work_dir, last).resolve(), WorkDir(work_dir).read_config()
    require_masks(config.model.type)
    names, side = class_names(config), image_side(config)
    if tile is None:
        tile = side if tiles == "auto" else config.get("tiles", 0)
    request = PredictionRequest.of(listed, work_dir, weights, score, tile)
    print_lines(*listed.remarks)
    seen = f", in tiles of {request.tile} pixels" if request.tile else ""
    print_lines(f"{len(listed)} images of {images}: {weights}, {device}{seen} -> {out}")
    job = PredictionJob(request, work_dir, weights, out, device, retry_failed)
    with progress("finding objects", "images", len(listed)) as advance:
        job.run(listed, workers, advance)
    source = images if images.suffix.lower() == ".json" else None
    write_results(job, format, names, category_ids(config, names, source), side)


def check_stems(names: Sequence[str], out: Path) -> None:
    """Check that each image gets files of its own, before hours of work whose results could not be written.

    Raises:
        UserError: two images have paths that differ by their suffixes alone.
    """
    paths = LabelPaths(out, ".*")
    for name in names:
        paths.of(name)


def write_results(
    job: PredictionJob, formats: Sequence[str], names: Sequence[str], category_ids: Sequence[int], side: int
) -> None:
    """Write what was found in these formats, and print what there is and what failed.

    Args:
        names, category_ids: of the classes.
        side: how long the longer side of an image usually is, in pixels.
    """
    from stage2_training.inference.result_files import RESULT_WRITERS

    out, files = job.out, NewFiles()
    root = Path(job.request.image_root)
    makers = RESULT_WRITERS | {"coco": partial(CocoWriter, category_ids=category_ids)}
    writers: list[LabelWriter] = [makers[kind](out, root, names, files) for kind in formats]
    objects, large, failures = 0, 0, list[Failure]()
    for found in track("writing results", "images", job.results(), job.request.image_count):
        if isinstance(found, Failure):
            failures.append(found)
            continue
        objects += len(found.counts)
        large += max(found.size) > TILES_FROM * side
        for writer in writers:
            writer.write(found)
    for writer in writers:
        writer.close()
    images = job.request.image_count - len(failures)
    print(f"{out}: {objects} objects in {images} images as {', '.join(formats)}, {len(failures)} images failed")
    print(f"{files.written} files written, {files.unchanged} were there already")
    if not objects and images and job.request.score:
        print(f"no object has a score of {job.request.score:g} or more; a lower SCORE, with another OUT, finds more")
    if files.kept:
        print_lines(
            f"{len(files.kept)} files that hold something else stay as they are, {files.kept[0]} first; to have them "
            f"written anew, remove them and run the command again"
        )
    if large and not job.request.tile:
        print(f"{large} images are much larger than those of training, {side} pixels: TILES=auto finds more in them")
    report_failures(out, failures)


def report_failures(out: Path, failures: Sequence[Failure]) -> None:
    """Print the images that could not be read, and list all of them in `failed.txt`."""
    lines = [f"{quoted(failure.file_name)}: {failure.reason}" for failure in failures]
    if failures or (out / "failed.txt").exists():
        write_text(out / "failed.txt", "".join(f"{line}\n" for line in lines))
    print_lines(*(f"  failed: {line}" for line in lines[:FAILURES_SHOWN]))
    if len(failures) > FAILURES_SHOWN:
        print(f"  ... and {len(failures) - FAILURES_SHOWN} more, all in {out / 'failed.txt'}")
    if failures:
        print("  Repair them and run again with OPTS=--retry-failed to read them.")
