"""Fine-tune a detector on a labelled dataset, evaluating as it goes. Run again, it goes on."""

import argparse
import sys
from pathlib import Path
from typing import Any

from pipelines import cli
from pipelines.processes import one_per_gpu
from pipelines.run_options import add_custom_options, add_run_options, custom_options, run_overrides
from stage1_proposals.common.system import choose_device


def build_parser() -> argparse.ArgumentParser:
    parser = cli.Parser(prog="python -m pipelines.finetune", description=__doc__)
    parser.add_argument("--model", default="knet", help="configs/models/MODEL.py, or a config file")
    parser.add_argument(
        "--dataset", required=True, help="configs/datasets/DATASET.py, a config file, COCO JSON, or a labelme folder"
    )
    parser.add_argument(
        "--init",
        default="sp",
        help="initial weights: sp (pre-training with Saliency Prompt), pseudo (without prompts), imagenet, densecl, "
        "swav, mocov2 (the backbone alone), coco (the published K-Net), scratch, or a file",
    )
    parser.add_argument(
        "--checkpoint",
        help="with --init sp, pseudo or coco: the checkpoint, or pre-training's work directory (default: MODEL's)",
    )
    parser.add_argument("--backbone-weights", help="file with the weights of --init imagenet, densecl, swav or mocov2")
    parser.add_argument("--data-root", help="folder of the dataset (default: what its config says)")
    add_run_options(parser, schedule=None, work_dir="work_dirs/finetune/DATASET/MODEL-INIT")
    add_custom_options(parser)
    return parser


@one_per_gpu("pipelines.finetune")
def main(args: argparse.Namespace) -> None:
    device = choose_device(args.device)
    # MMDetection takes seconds to import; `--help` and mistyped options need not wait for it.
    device = choose_device(args.device)
    with cli.quiet_imports():
        from stage1_proposals.common.files import write_json, writing
        from stage2_training.config import compose
        from stage2_training.config.checks import check_annotations
        from stage2_training.config.datasets import open_dataset
        from stage2_training.evaluation.curves import plot_curves
        from stage2_training.evaluation.scores import format_scores, read_curve
        from stage2_training.labels.custom import name_of
        from stage2_training.runs import initial_weights as initialisation
        from stage2_training.runs import train as training
        from stage2_training.runs.work_dir import GO_ON, WorkDir

    labelled = open_dataset(args.dataset, args.data_root, custom_options(args))
    for remark in labelled.remarks:
        print(remark)
    config = compose.finetuning_config(
        args.model,
        labelled.fragment,
        args.schedule,
        init=args.init,
        overrides=run_overrides(args),
    )
    check_annotations(config, ["train", "val"])
    start = initialisation.by_name(
        args.init, args.model, config.model.type, checkpoint=args.checkpoint, weights=args.backbone_weights
    )

    model, init, dataset = Path(args.model).stem, Path(args.init).stem, name_of(args.dataset)
    work = WorkDir(args.work_dir or f"work_dirs/finetune/{dataset}/{model}-{init}")

    def judge() -> dict[str, Any]:
        """The scores after the last epoch; writes and draws those of all."""
        curve = read_curve(work.path)
        with writing(work.path / "curve.json", GO_ON):
            write_json(work.path / "curve.json", curve)
            plot_curves({init: curve}, work.path / "curve.png")
        return curve[-1]

    purpose = f"Fine-tuning {args.model} on {args.dataset} from {args.init} ({device})"
    result = training.train(work, config, start, purpose, judge, args.command, args.cfg_options)
    print(f"Fine-tuned: {result.checkpoint}\n{format_scores(result.outcome)}")


if __name__ == "__main__":
    sys.exit(cli.run(main, build_parser()))
