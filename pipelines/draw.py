"""Pictures of runs: learning curves, what queries look at, proposals beside detections."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipelines import options
from pipelines.console import one_line, open_labels, quiet_imports, track
from stage1_proposals.common.errors import UserError
from stage1_proposals.common.files import check_writable, write_json, writing
from stage1_proposals.common.system import choose_device

if TYPE_CHECKING:
    from stage2_training.labels.custom import CustomDatasetOptions

NamedRun = tuple[str, list[Path]]


def named_run(text: str) -> NamedRun:
    """The type of an argument `NAME=DIR`, or `NAME=DIR,DIR,DIR`, the seeds of one setting."""
    name, _, directories = text.partition("=")
    if not name or not directories:
        raise UserError(f"{text!r}: write it as NAME=RUN_DIR")
    return name, [Path(directory) for directory in directories.split(",")]


def png_file(text: str) -> Path:
    """The type of an option that names a picture to be written."""
    if Path(text).suffix.lower() != ".png":
        raise UserError(f"--out {text}: pictures are written as .png")
    check_writable(Path(text))
    return Path(text)


def share(text: str) -> float:
    """The type of an option that is a number from 0 to 1; unlike `click.FloatRange`, it refuses NaN."""
    with suppress(ValueError):
        if 0 <= float(text) <= 1:
            return float(text)
    raise UserError(f"--score {text!r}: must be between 0 and 1")


runs_argument = click.argument("runs", nargs=-1, required=True, type=named_run, metavar="NAME=RUN_DIR...")


def out_option(default: str) -> options.Decorator:
    """`--out`."""
    return click.option("--out", default=default, type=png_file, metavar="FILE", help="The picture, .png.")


@click.group(cls=options.Group)
def command() -> None:
    """Draw a picture of runs."""


@command.command()
@runs_argument
@click.option("--metric", default="AP", help="AP, AP50, AP75, AP_S, AP_M, AP_L, or of boxes: box_AP, ...")
@click.option("--title", help="Title of the picture.")
@out_option("curves.png")
def curves(runs: Sequence[NamedRun], metric: str, title: str | None, out: Path) -> None:
    """AP over epochs, one line per name (Figures 3 and 4); written to a JSON file, too.

    Several directories of one name are its seeds: their mean is drawn, and a band from the lowest to the highest.
    """
    with quiet_imports():
        from stage2_training.evaluation.curves import mean_curve, plot_curves
        from stage2_training.evaluation.scores import SCORE_NAMES, read_curve

    if metric not in SCORE_NAMES:
        raise UserError(f"--metric {metric}: no such score; there are {', '.join(SCORE_NAMES)}")
    points_by_name = {}
    for name, directories in unique_names(runs).items():
        seeds = []
        for directory in directories:
            points = read_curve(directory)
            if not points:
                raise UserError(f"{directory}: no run here that was evaluated")
            if any(point.get(metric, -1) < 0 for point in points):
                raise UserError(f"{directory}: has no {metric} at every epoch; draw another --metric")
            seeds.append([{"epoch": point["epoch"], metric: point[metric]} for point in points])
        points_by_name[name] = seeds[0] if len(seeds) == 1 else mean_curve(seeds, metric)
        if not points_by_name[name]:
            raise UserError(f"{name}: its runs have no epoch in common at which they were evaluated")
    with writing(out):
        plot_curves(points_by_name, out, metric, title)
        directories_by_name = {name: list(map(str, directories)) for name, directories in runs}
        write_json(out.with_suffix(".json"), {"metric": metric, "runs": directories_by_name, "curves": points_by_name})
    for name, points in points_by_name.items():
        last = points[-1]
        spread = f" ({100 * last['lowest']:.1f} to {100 * last['highest']:.1f})" if "lowest" in last else ""
        print(f"{name}: {metric} {100 * last[metric]:.1f}{spread} after epoch {last['epoch']}")
    print(f"picture: {out}")


def unique_names(runs: Sequence[NamedRun]) -> dict[str, list[Path]]:
    """The runs by name, no two of which may be the same."""
    by_name = dict(runs)
    if len(by_name) < len(runs):
        raise UserError("two runs of one name; runs of several seeds are written as NAME=DIR,DIR")
    return by_name


@command.command()
@runs_argument
@options.dataset_option()
@options.data_root_option
@click.option("--count", type=options.POSITIVE, default=5000, help="Images, the first ones.")
@options.device_option
@options.workers_option
@options.custom_dataset_options
@out_option("activations.png")
def activations(
    runs: Sequence[NamedRun],
    dataset: str,
    data_root: str | None,
    count: int,
    device: str | None,
    workers: int | None,
    custom: "CustomDatasetOptions",
    out: Path,
) -> None:
    """Where each query looks, on average (Figure 6).

    The mask of each query, as predicted by the last stage, is averaged over a dataset's test images at 200 x 200
    pixels: one picture per model, and in a JSON file beside it how different the queries are. Of a custom dataset, the
    images are the fifth that fine-tuning holds out. To use all images, pass the same labels as --test-labels.
    """
    choose_device(device)
    with quiet_imports():
        from stage2_training.config.annotation_files import check_annotations
        from stage2_training.config.evaluation_config import evaluation_config
        from stage2_training.config.overrides import Overrides
        from stage2_training.evaluation import activations as statistics
        from stage2_training.evaluation.query_masks import query_masks
        from stage2_training.inference.predictor import image_loader, load_detector, preprocess
        from stage2_training.runs.work_dir import WorkDir

    overrides = Overrides(data_root=data_root, workers=workers)
    models, maps, numbers = {}, {}, {}
    for name, directories in unique_names(runs).items():
        if len(directories) > 1:
            raise UserError(f"{name}: several runs; each model is drawn by itself, under a name of its own")
        work = WorkDir(directories[0])
        models[name] = work.read_config(), work.require_checkpoint()
    labels = open_labels(dataset, data_root, custom)
    for name, (run, checkpoint) in models.items():
        config = evaluation_config(run, labels, overrides)
        check_annotations(config, ["test"])
        model = load_detector(config, checkpoint)
        loader = image_loader(config, count)
        batches = track(loader, name, "images", len(loader))
        maps[name], image_count = statistics.mean_maps(
            query_masks(model, *preprocess(model, batch)) for batch in batches
        )
        numbers[name] = {
            "run": str(checkpoint.parent),
            "checkpoint": str(checkpoint),
            "images": image_count,
            "queries": len(maps[name]),
            "overlap": statistics.mean_overlap(maps[name]),
            "entropy": statistics.location_entropy(maps[name]),
        }
    with writing(out):
        statistics.draw_activations(maps, out)
        write_json(out.with_suffix(".json"), numbers)
    width = max(map(len, numbers))
    print(f"{'':<{width}}  queries  images  overlap  entropy")
    for name, row in numbers.items():
        print(f"{name:<{width}}  {row['queries']:7}  {row['images']:6}  {row['overlap']:7.3f}  {row['entropy']:7.3f}")
    print(f"picture: {out}")


@command.command()
@options.shards_option
@click.option("--work-dir", required=True, type=options.PATH, help="Work directory of a fine-tuning run.")
@click.option("--count", type=options.POSITIVE, default=8, help="Images.")
@click.option("--score", type=share, default=0.3, help="Lowest score of a detection to draw.")
@options.seed_option("Decides which images are drawn.")
@options.image_root_option
@options.device_option
@out_option("results.png")
def results(
    shards: Path,
    work_dir: Path,
    count: int,
    score: float,
    seed: int,
    image_root: Path | None,
    device: str | None,
    out: Path,
) -> None:
    """Proposals beside what a fine-tuned run detects (Figure 5).

    Images of a shard set, each with its proposals and, to the right, the detections.
    """
    choose_device(device)
    with quiet_imports():
        import numpy as np

        from stage1_proposals.analysis.samples import sample
        from stage1_proposals.common.drawing import CAPTION, TILE, caption, contact_sheet, draw_named, draw_proposals
        from stage1_proposals.images.decode import ImageError
        from stage1_proposals.shards import ShardSet
        from stage2_training.inference.predictor import detect, load_detector
        from stage2_training.runs.work_dir import WorkDir

    shard_set = ShardSet.open(shards)
    root = image_root or Path(shard_set.image_root)
    work = WorkDir(work_dir)
    config = work.read_config()
    if "test_dataloader" not in config:
        raise UserError(f"{work_dir}: is a pre-training run; name one of fine-tuning, which knows classes")
    dataset = config.test_dataloader.dataset
    classes = dataset.metainfo["classes"]
    model = load_detector(config, work.require_checkpoint())
    tiles, detections = [], 0
    samples = sample(shard_set, root, count, seed)
    for record, image in track(samples, "detecting", "images", min(count, shard_set.image_count)):
        if isinstance(image, ImageError):
            print(f"not drawn: {one_line(record.file_name)} {image}")
            continue
        detected = detect(model, dataset.pipeline, root / record.file_name)
        detected = detected[detected.scores >= score].cpu()
        detected = detected[detected.scores.argsort(descending=True)]
        detections += len(detected)
        labels_and_scores = zip(detected.labels.tolist(), detected.scores.tolist(), strict=True)
        names = [f"{classes[label]} {detection_score:.2f}" for label, detection_score in labels_and_scores]
        masks = detected.masks.numpy().astype(np.uint8)
        tiles += [
            caption(draw_proposals(image, record.masks(), record.seed, TILE - CAPTION), f"{len(record)} proposals"),
            caption(draw_named(image, masks, names, tile=TILE - CAPTION), f"{len(names)} detections"),
        ]
    if not tiles:
        raise UserError(f"no sampled image was found unchanged under {root}; pass their folder as --image-root")
    with writing(out):
        contact_sheet(tiles, columns=4).save(out)
    print(f"{len(tiles) // 2} images, {detections} detections from score {score} up")
    print(f"picture: {out}")
