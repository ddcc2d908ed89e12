"""`table proposals`: how well generators and backbones find labelled objects, and how long they take."""

import hashlib
import re
from pathlib import Path

import click

from pipelines.console import describe_machine, format_table, print_lines, progress
from pipelines.options import NON_NEGATIVE, PATH, POSITIVE, Command, device_option, words_option
from stage1_proposals.common.files import write_text
from stage1_proposals.common.system import choose_device

GENERATORS = ("random", "saliency", "saliency,component=seed", "freemask", "merging", "merging,objects=small")
BACKBONES = ("lite0_imagenet", "dinov2_s")
TIMED_IMAGES = 8


@click.command("proposals", cls=Command)
@click.option("--images", required=True, type=PATH, help="Folder, COCO JSON or list of paths.")
@click.option("--image-root", type=PATH, help="Folder that the paths of a JSON or text file are relative to.")
@click.option("--labels", required=True, type=PATH, help="COCO instance JSON of some or all of the images.")
@words_option("--generator", default=GENERATORS, metavar="NAME[,KEY=VALUE]", help="Generators, with settings.")
@words_option("--backbone", default=BACKBONES, metavar="NAME", help="Backbones; the first one alone for `random`.")
@click.option("--short-side", type=POSITIVE, default=480, help="Input size in pixels.")
@click.option("--work-dir", type=PATH, default="work_dirs/proposals", help="Where shard sets and tables go.")
@click.option("--workers", type=NON_NEGATIVE, help="Ray actors; 0: none. Default: one per GPU or core.")
@device_option
def command(
    images: Path,
    image_root: Path | None,
    labels: Path,
    generator: tuple[str, ...],
    backbone: tuple[str, ...],
    short_side: int,
    work_dir: Path,
    workers: int | None,
    device: str | None,
) -> None:
    """Generators of pseudo masks on labelled images, with several backbones; missing shard sets are made first."""
    device = choose_device(device)
    from stage1_proposals.analysis.recall import HEADING, NAMES, Labels, table_row
    from stage1_proposals.analysis.timing import seconds_per_image
    from stage1_proposals.images.listing import list_images
    from stage1_proposals.jobs.request import job_of
    from stage1_proposals.jobs.run import run
    from stage1_proposals.shards import ShardSet

    labelled, listed = Labels.read(labels), list_images(images, image_root)
    digest = hashlib.sha256(f"{listed.root} {listed.sha256()}".encode()).hexdigest()
    folder = work_dir / f"{images.stem}-{digest[:6]}"
    jobs = {
        (name, network): job_of(listed, name, network, device, short_side)
        for network in backbone
        for name in generator
        if name != "random" or network == backbone[0]  # its masks are the same with any backbone
    }
    rows = []
    for (name, network), job in jobs.items():
        shards = folder / re.sub(r"[^\w.]+", "-", f"{network} {short_side} {name}")
        print(f"== {name} with {network}: {shards}", flush=True)
        with progress("making proposals", "images", len(listed)) as advance:
            run(job, shards, workers, advance)
        seconds = [f"{value:.3f}" for value in seconds_per_image(job, TIMED_IMAGES)]
        rows.append([*table_row(ShardSet.open(shards), labelled), *seconds])
    heading = [*HEADING, "backbone s", "generator s"]
    print(f"\n{labelled.describe()}\n\n{format_table(heading, rows, left=NAMES)}\n")
    notes = [
        f"{labelled.describe()}.",
        f"The last columns are seconds of one core or GPU for an image, on {min(TIMED_IMAGES, len(listed))} images.",
        f"Made on {describe_machine(device)}.",
    ]
    page = write_text(folder / f"{labels.stem}.md", "\n\n".join([*notes, format_table(heading, rows, True, NAMES), ""]))
    print_lines(*notes[1:], f"Written to {page}")
