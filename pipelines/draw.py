"""`make draw`: learning curves, what queries look at, proposals beside detections."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from pipelines import cli
from pipelines.inspect_shards import chosen_images
from pipelines.run_options import add_custom_options, custom_options
from stage1_proposals.common.drawing import CAPTION, TILE, caption, contact_sheet, draw_named, draw_proposals
from stage1_proposals.common.errors import UserError
from stage1_proposals.common.files import check_writable, write_json, writing
from stage1_proposals.common.system import choose_device
from stage1_proposals.shards import ShardSet
from stage2_training.evaluation.scores import SCORE_NAMES, read_curve

Runs = dict[str, list[Path]]


def build_parser() -> argparse.ArgumentParser:
    parser = cli.Parser(prog="python -m pipelines.draw", description=__doc__)
    pictures = parser.add_subparsers(dest="picture", required=True, metavar="PICTURE")
    add_curves(pictures.add_parser("curves", help="AP over epochs, several runs side by side (Figures 3 and 4)"))
    add_activations(pictures.add_parser("activations", help="where each query looks, on average (Figure 6)"))
    add_results(pictures.add_parser("results", help="proposals beside what a fine-tuned run detects (Figure 5)"))
    for picture in pictures.choices.values():
        picture.add_argument("--out", required=True, type=Path, help="picture, .png")
        # As the command's own, which would have to stand before the picture's name.
        picture.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    return parser


def named_run(text: str) -> tuple[str, list[Path]]:
    """An argparse type: `NAME=DIR`, or `NAME=DIR,DIR,DIR`."""
    name, _, runs = text.partition("=")
    if not name or not runs:
        raise argparse.ArgumentTypeError(f"{text!r}: write it as NAME=RUN_DIR")
    return name, [Path(run) for run in runs.split(",")]


def add_curves(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "AP over epochs, one line per name; several directories are seeds of it: their mean, and a band from the "
        "lowest to the highest. The curves go to a JSON file beside the picture, too."
    )
    parser.add_argument("runs", nargs="+", type=named_run, metavar="NAME=RUN_DIR[,RUN_DIR ...]", help="fine-tuned runs")
    parser.add_argument("--metric", default="AP", help="AP, AP50, AP75, AP_S, AP_M, AP_L, or of boxes: box_AP, ...")
    parser.add_argument("--title", help="above the picture")
    parser.set_defaults(draw=draw_curves)


def draw_curves(args: argparse.Namespace) -> None:
    if args.metric not in SCORE_NAMES:
        raise UserError(f"--metric {args.metric}: no such score; there are {', '.join(SCORE_NAMES)}")
    with cli.quiet_imports():
        from stage2_training.evaluation.curves import mean_curve, plot_curves

    curves = {}
    for name, runs in unique(args.runs).items():
        seeds = []
        for run in runs:
            points = read_curve(run)
            if not points:
                raise UserError(f"{run}: no run here that was evaluated")
            if any(point.get(args.metric, -1) < 0 for point in points):
                raise UserError(f"{run}: has no {args.metric} at every epoch; draw another --metric")
            seeds.append([{"epoch": point["epoch"], args.metric: point[args.metric]} for point in points])
        curves[name] = seeds[0] if len(seeds) == 1 else mean_curve(seeds, args.metric)
        if not curves[name]:
            raise UserError(f"{name}: its runs have no epoch in common at which they were evaluated")
    with writing(args.out):
        plot_curves(curves, args.out, args.metric, args.title)
        directories = {name: list(map(str, runs)) for name, runs in args.runs}
        write_json(args.out.with_suffix(".json"), {"metric": args.metric, "runs": directories, "curves": curves})
    for name, points in curves.items():
        last = points[-1]
        spread = f" ({100 * last['lowest']:.1f} to {100 * last['highest']:.1f})" if "lowest" in last else ""
        print(f"{name}: {args.metric} {100 * last[args.metric]:.1f}{spread} after epoch {last['epoch']}")


def unique(runs: Sequence[tuple[str, list[Path]]]) -> Runs:
    """The runs by name.

    Raises:
        UserError: two of one name.
    """
    named = dict(runs)
    if len(named) < len(runs):
        raise UserError("two runs of one name; runs of several seeds are written as NAME=DIR,DIR")
    return named


def add_activations(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "The mask of each query, as it was last predicted, averaged over a data set's test images at 200 x 200 pixels: "
        "one picture per model, and in a JSON file beside it how different the queries are. Of labels of your own, "
        "the images are the fifth that fine-tuning holds out; with --test-labels DATASET, the same labels again, all."
    )
    parser.add_argument(
        "runs", nargs="+", type=named_run, metavar="NAME=RUN_DIR", help="pre-trained or fine-tuned runs"
    )
    parser.add_argument(
        "--dataset", required=True, help="configs/datasets/DATASET.py, a config file, COCO JSON, or a labelme folder"
    )
    parser.add_argument("--data-root", help="folder of the dataset (default: what its config says)")
    parser.add_argument(
        "--images", type=cli.at_least(1), default=5000, help="images, the first of them (default: 5000)"
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], help="default: the GPU when there is one")
    parser.add_argument("--workers", type=cli.at_least(0), help="data-loading processes; 0 loads in the main process")
    add_custom_options(parser)
    parser.set_defaults(draw=draw_activations)


def draw_activations(args: argparse.Namespace) -> None:
    choose_device(args.device)
    with cli.quiet_imports():
        from stage2_training.config.checks import check_annotations
        from stage2_training.config.datasets import open_dataset
        from stage2_training.config.evaluation_config import evaluation_config
        from stage2_training.config.overrides import Overrides
        from stage2_training.evaluation import activations
        from stage2_training.evaluation.query_masks import query_masks
        from stage2_training.inference.predictor import image_loader, load_detector, preprocess
        from stage2_training.runs.work_dir import WorkDir

    overrides = Overrides(data_root=args.data_root, workers=args.workers)
    models, maps, numbers = {}, {}, {}
    for name, runs in unique(args.runs).items():
        if len(runs) > 1:
            raise UserError(f"{name}: several runs; each model is drawn by itself, under a name of its own")
        work = WorkDir(runs[0])
        models[name] = work.read_config(), work.require_checkpoint()
    labelled = open_dataset(args.dataset, args.data_root, custom_options(args))
    for remark in labelled.remarks:
        print(remark)
    for name, (run, checkpoint) in models.items():
        config = evaluation_config(run, labelled.fragment, overrides)
        check_annotations(config, ["test"])
        model = load_detector(config, checkpoint)
        loader = tqdm(image_loader(config, args.images), desc=name, unit="image")
        masks = (query_masks(model, *preprocess(model, batch)) for batch in loader)
        maps[name], images = activations.mean_maps(masks)
        numbers[name] = {
            "run": str(checkpoint.parent),
            "checkpoint": str(checkpoint),
            "images": images,
            "queries": len(maps[name]),
            "overlap": activations.mean_overlap(maps[name]),
            "entropy": activations.location_entropy(maps[name]),
        }
    with writing(args.out):
        activations.draw_activations(maps, args.out)
        write_json(args.out.with_suffix(".json"), numbers)
    width = max(map(len, numbers))
    print(f"{'':<{width}}  queries  images  overlap  entropy")
    for name, row in numbers.items():
        print(f"{name:<{width}}  {row['queries']:7}  {row['images']:6}  {row['overlap']:7.3f}  {row['entropy']:7.3f}")


def add_results(parser: argparse.ArgumentParser) -> None:
    parser.description = "Images of a shard set, each with its proposals and, to the right, what a run detects in it."
    parser.add_argument("--shards", required=True, type=cli.shard_directory, help="directory of the shard set")
    parser.add_argument("--run", required=True, type=Path, help="work directory of a fine-tuning run")
    parser.add_argument("--images", type=cli.at_least(1), default=8, help="images, chosen by seed (default: 8)")
    parser.add_argument("--score", type=cli.share, default=0.3, help="lowest score of what is drawn (default: 0.3)")
    parser.add_argument("--seed", type=cli.at_least(0), default=0, help="which images are drawn")
    parser.add_argument("--image-root", type=Path, help="where the images are now, if they moved")
    parser.add_argument("--device", choices=["cpu", "cuda"], help="default: the GPU when there is one")
    parser.set_defaults(draw=draw_results)


def draw_results(args: argparse.Namespace) -> None:
    choose_device(args.device)
    with cli.quiet_imports():
        from stage2_training.inference.predictor import detect, load_detector
        from stage2_training.runs.work_dir import WorkDir

    shards = ShardSet.open(args.shards)
    root = args.image_root or Path(shards.image_root)
    work = WorkDir(args.run)
    config = work.read_config()
    if "test_dataloader" not in config:
        raise UserError(f"{args.run}: is a pre-training run; name one of fine-tuning, which knows classes")
    images = config.test_dataloader.dataset
    model = load_detector(config, work.require_checkpoint())
    tiles, found = [], 0
    images_and_records = chosen_images(shards, root, args.images, args.seed)
    for record, image in tqdm(images_and_records, total=min(args.images, shards.image_count), unit="image"):
        detected = detect(model, images.pipeline, root / record.file_name)
        detected = detected[detected.scores >= args.score].cpu()
        detected = detected[detected.scores.argsort(descending=True)]
        found += len(detected)
        names = [
            f"{images.metainfo['classes'][label]} {score:.2f}"
            for label, score in zip(detected.labels.tolist(), detected.scores.tolist(), strict=True)
        ]
        masks = detected.masks.numpy().astype(np.uint8)
        tiles += [
            caption(draw_proposals(image, record.masks(), record.seed, TILE - CAPTION), f"{len(record)} proposals"),
            caption(draw_named(image, masks, names, tile=TILE - CAPTION), f"{len(names)} detections"),
        ]
    with writing(args.out):
        contact_sheet(tiles, columns=4).save(args.out)
    print(f"{len(tiles) // 2} images, {found} detections from score {args.score} up")


def main(args: argparse.Namespace) -> None:
    if args.out.suffix.lower() != ".png":
        raise UserError(f"--out {args.out}: pictures are written as .png")
    check_writable(args.out)
    args.draw(args)
    print(f"picture: {args.out}")


if __name__ == "__main__":
    sys.exit(cli.run(main, build_parser()))
