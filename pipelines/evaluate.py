"""Evaluate a checkpoint: COCO AP of masks and boxes on a dataset's test images."""

import argparse
import sys
from pathlib import Path

from pipelines import cli
from pipelines.run_options import add_custom_options, custom_options
from stage1_proposals.common.system import choose_device
from stage2_training.config.overrides import Overrides


def build_parser() -> argparse.ArgumentParser:
    parser = cli.Parser(
        prog="python -m pipelines.evaluate",
        description=__doc__,
        epilog="Either name the work directory of a fine-tuning run, or model, dataset and checkpoint; or, with "
        "--class-agnostic, the work directory of any run and a dataset. Of labels of your own, the images are the "
        "fifth that fine-tuning holds out; with --test-labels DATASET, the same labels again, all of them.",
    )
    parser.add_argument("--work-dir", help="work directory of a fine-tuning run; with --class-agnostic, of any run")
    parser.add_argument("--model", help="configs/models/MODEL.py, or a config file")
    parser.add_argument(
        "--dataset", help="configs/datasets/DATASET.py, a config file, COCO JSON, or a folder of labelme files"
    )
    parser.add_argument(
        "--schedule", help="decides the images' size; with --model and --dataset; default: the dataset's"
    )
    parser.add_argument("--data-root", help="folder of the dataset (default: what its config says)")
    parser.add_argument("--checkpoint", help="a file, or a run's directory: its latest (default: that of --work-dir)")
    parser.add_argument(
        "--class-agnostic", action="store_true", help="objects of all classes count as one, and so do detections"
    )
    parser.add_argument(
        "--out",
        help="JSON file of the scores (default: metrics.json, or class_agnostic.json, beside the checkpoint)",
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], help="default: the GPU when there is one")
    parser.add_argument("--workers", type=cli.at_least(0), help="data-loading processes; 0 loads in the main process")
    parser.add_argument(
        "--cfg-options", nargs="+", default=(), metavar="KEY=VALUE", help="change any setting, as in MMDetection"
    )
    add_custom_options(parser)
    return parser


def main(args: argparse.Namespace) -> None:
    choose_device(args.device)
    # MMDetection takes seconds to import; `--help` and mistyped options need not wait for it.
    choose_device(args.device)
    with cli.quiet_imports():
        from stage1_proposals.common.errors import UserError
        from stage1_proposals.common.files import check_writable, write_json, writing
        from stage2_training.config import compose
        from stage2_training.config.checks import check_annotations
        from stage2_training.config.datasets import open_dataset
        from stage2_training.config.evaluation_config import evaluation_config
        from stage2_training.evaluation.scores import format_scores
        from stage2_training.labels.custom import CustomDatasetOptions
        from stage2_training.runs import train as training
        from stage2_training.runs.work_dir import WorkDir

    overrides = Overrides(workers=args.workers, data_root=args.data_root, cfg_options=args.cfg_options)
    choices, dataset = custom_options(args), None
    if args.work_dir:
        if args.model or args.schedule:
            raise UserError("--model and --schedule do not go with --work-dir: a run knows its own")
        if args.dataset and not args.class_agnostic:
            raise UserError("--dataset beside --work-dir goes with --class-agnostic: a run knows its own classes only")
        if choices != CustomDatasetOptions() and not args.dataset:
            raise UserError("--test-labels and the like go with --dataset: a run knows its own images")
        run = WorkDir(args.work_dir).read_config()
    elif not (args.model and args.dataset):
        raise UserError("nothing to evaluate: pass --work-dir, or --model, --dataset and --checkpoint")
    source = args.checkpoint or args.work_dir
    if source is None:
        raise UserError("no checkpoint to evaluate: pass --checkpoint FILE, or the --work-dir of a run that has one")
    checkpoint = WorkDir(source).require_checkpoint() if Path(source).is_dir() else Path(source)
    if not checkpoint.is_file():
        raise UserError(f"{checkpoint}: no such checkpoint")

    if args.dataset:
        labelled = open_dataset(args.dataset, args.data_root, choices)
        dataset = labelled.fragment
        for remark in labelled.remarks:
            print(remark)
    if not args.work_dir:
        run = compose.finetuning_config(args.model, dataset, args.schedule, overrides=overrides)
        dataset = None
    config = evaluation_config(run, dataset, overrides, args.class_agnostic)
    check_annotations(config, ["test"])

    name = "class_agnostic.json" if args.class_agnostic else "metrics.json"
    out = Path(args.out or checkpoint.parent / name)
    check_writable(out)
    scores = training.evaluate(config, checkpoint, out.parent / "evaluation", args.cfg_options)
    with writing(out):
        write_json(out, {**scores, "checkpoint": str(checkpoint)})
    print(f"{checkpoint}\n{format_scores(scores)}\nwritten to {out}")


if __name__ == "__main__":
    sys.exit(cli.run(main, build_parser()))
