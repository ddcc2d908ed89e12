"""Pictures of runs: learning curves, what queries look at, proposals beside detections."""

from functools import partial
from pathlib import Path

import click

from pipelines import options
from pipelines.console import format_table, print_lines, track
from stage1_proposals.common.errors import UserError
from stage1_proposals.common.files import check_writable, write_json, writing
from stage1_proposals.common.system import choose_device
from stage2_training import quiet_imports
from stage2_training.config.run_settings import Overrides
from stage2_training.labels.custom import CustomDatasetOptions

Runs = dict[str, list[Path]]  # by name, the directories of one setting's seeds


def parse_runs(context: click.Context, parameter: click.Parameter, words: tuple[str, ...]) -> Runs:
    """The value of an argument of `NAME=DIR` or `NAME=DIR,DIR,DIR`."""
    runs: Runs = {}
    for word in words:
        name, _, directories = word.partition("=")
        if not name or not directories:
            raise UserError(f"{word!r}: write it as NAME=RUN_DIR")
        if name in runs:
            raise UserError("two runs of one name; runs of several seeds are written as NAME=DIR,DIR")
        runs[name] = [Path(directory) for directory in directories.split(",")]
    return runs


def png_file(text: str) -> Path:
    """The type of an option that names a picture to be written."""
    if Path(text).suffix.lower() != ".png":
        raise UserError(f"--out {text}: pictures are written as .png")
    check_writable(Path(text))
    return Path(text)


runs_argument = click.argument("runs", nargs=-1, required=True, callback=parse_runs, metavar="NAME=RUN_DIR...")


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
def curves(runs: Runs, metric: str, title: str | None, out: Path) -> None:
    """AP over epochs, one line per name (Figures 3 and 4); written to a JSON file, too.

    Several directories of one name are its seeds: their mean is drawn, and a band from the lowest to the highest.
    """
    from stage2_training.evaluation.curves import plot_curves, read_mean_curve

    points_by_name = {name: read_mean_curve(name, directories, metric) for name, directories in runs.items()}
    with writing(out):
        plot_curves(points_by_name, out, metric, title)
        directories_by_name = {name: list(map(str, directories)) for name, directories in runs.items()}
        write_json(out.with_suffix(".json"), {"metric": metric, "runs": directories_by_name, "curves": points_by_name})
    for name, points in points_by_name.items():
        last = points[-1]
        spread = f" ({100 * last['lowest']:.1f} to {100 * last['highest']:.1f})" if "lowest" in last else ""
        print(f"{name}: {metric} {100 * last[metric]:.1f}{spread} after epoch {last['epoch']}")
    print(f"picture: {out}")


@command.command()
@runs_argument
@options.dataset_option()
@click.option("--count", type=options.POSITIVE, default=5000, help="Images, the first ones.")
@options.device_option
@options.settings_options("overrides", Overrides, only=["data_root", "workers"])
@options.settings_options("custom", CustomDatasetOptions)
@out_option("activations.png")
def activations(
    runs: Runs,
    dataset: str,
    count: int,
    device: str | None,
    overrides: Overrides,
    custom: CustomDatasetOptions,
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
        from stage2_training.config.datasets import open_dataset
        from stage2_training.config.evaluation_config import evaluation_config
        from stage2_training.evaluation.activations import draw_activations
        from stage2_training.inference.predictor import mean_query_masks
        from stage2_training.runs.work_dir import WorkDir

    models, averages, numbers = {}, {}, {}
    for name, directories in runs.items():
        if len(directories) > 1:
            raise UserError(f"{name}: several runs; each model is drawn by itself, under a name of its own")
        work = WorkDir(directories[0])
        models[name] = work.read_config(), work.require_checkpoint(last=True)
    labels = open_dataset(dataset, overrides.data_root, custom)
    print_lines(*labels.remarks)
    for name, (run, checkpoint) in models.items():
        config = evaluation_config(run, labels.fragment, overrides)
        check_annotations(config, ["test"])
        averages[name] = mean_query_masks(config, checkpoint, count, partial(track, name, "batches"))
        numbers[name] = {"run": str(checkpoint.parent), "checkpoint": str(checkpoint), **averages[name].numbers()}
    with writing(out):
        draw_activations({name: average.maps for name, average in averages.items()}, out)
        write_json(out.with_suffix(".json"), numbers)
    cells = [
        [name, str(row["queries"]), str(row["images"]), f"{row['overlap']:.3f}", f"{row['entropy']:.3f}"]
        for name, row in numbers.items()
    ]
    print(format_table(("", "queries", "images", "overlap", "entropy"), cells))
    print(f"picture: {out}")


@command.command()
@options.shards_option
@click.option("--work-dir", required=True, type=options.PATH, help="Work directory of a fine-tuning run.")
@click.option("--count", type=options.POSITIVE, default=8, help="Images.")
@options.score_option("Lowest score of a detection to draw.")
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
        from stage1_proposals.analysis.samples import sample
        from stage1_proposals.common.drawing import CAPTION, TILE, caption, contact_sheet, draw_proposals
        from stage1_proposals.shards import ShardSet
        from stage2_training.inference.predictor import Predictor
        from stage2_training.runs.work_dir import WorkDir

    shard_set = ShardSet.open(shards)
    root = image_root or Path(shard_set.image_root)
    if "test_dataloader" not in WorkDir(work_dir).read_config():
        raise UserError(f"{work_dir}: is a pre-training run; name one of fine-tuning, which knows classes")
    predictor = Predictor.from_run(work_dir, min_score=score)
    tiles, detections = [], 0
    samples = sample(shard_set, root, count, seed, print_lines)
    for record, image in track("detecting", "images", samples, min(count, shard_set.image_count)):
        proposals = draw_proposals(image, record.masks(), record.seed, TILE - CAPTION)
        found = predictor(image)
        detected = found.draw(image, TILE - CAPTION)
        tiles += [caption(proposals, f"{len(record)} proposals"), caption(detected, f"{len(found)} detections")]
        detections += len(found)
    with writing(out):
        contact_sheet(tiles, columns=4).save(out)
    print(f"{len(tiles) // 2} images, {detections} detections from score {score} up")
    print(f"picture: {out}")
