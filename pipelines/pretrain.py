"""Pre-train a detector on the pseudo labels of stage 1, with Saliency Prompt. Run again, it goes on."""

import argparse
import sys
from typing import TYPE_CHECKING

from pipelines import cli
from pipelines.processes import one_per_gpu
from pipelines.run_options import add_run_options, run_overrides
from stage1_proposals.common.system import choose_device

if TYPE_CHECKING:
    from mmengine.config import Config

    from stage1_proposals.shards import ShardSet


def build_parser() -> argparse.ArgumentParser:
    parser = cli.Parser(prog="python -m pipelines.pretrain", description=__doc__)
    parser.add_argument("--model", default="knet", help="configs/models/MODEL.py, or a config file")
    parser.add_argument("--shards", required=True, type=cli.shard_directory, help="directory of the pseudo labels")
    parser.add_argument("--image-root", help="where the images are now, if they moved since stage 1")
    parser.add_argument(
        "--prompts",
        choices=["on", "off"],
        default="on",
        help="off: the plain detector, neither prompts nor kernel supervision",
    )
    parser.add_argument(
        "--saliency-prompt",
        nargs="+",
        default=(),
        metavar="NAME=VALUE",
        help="how prompts are made and matched and kernels supervised: matching=cosine|sequential|random|none, "
        "add_to=initial|object, match_on=initial|object, rescale=True|False, level=-1, detach=True, drop_prob=0.1, "
        "kernel_loss_weight=1 (docs/ablations.md)",
    )
    parser.add_argument(
        "--pseudo-classes",
        action="store_true",
        help="one class per cluster of `make cluster`, instead of the paper's single class",
    )
    parser.add_argument(
        "--backbone", help="initial backbone: a name of the catalogue or `scratch` (default: the one stage 1 used)"
    )
    parser.add_argument("--backbone-weights", help="file with its weights, when it is not bundled")
    add_run_options(parser, schedule="pretrain", work_dir="work_dirs/pretrain/MODEL, or MODEL-pseudo without prompts")
    return parser


def compose_config(args: argparse.Namespace, shards: "ShardSet") -> "Config":
    """The config that the command line asks for.

    Raises:
        UserError: as `compose.pretraining_config`, or settings of prompts without prompts.
    """
    from stage1_proposals.common.errors import UserError
    from stage2_training.config import compose

    prompts = args.prompts == "on"
    if args.saliency_prompt and not prompts:
        raise UserError("--saliency-prompt goes with --prompts on: without prompts it would change nothing")
    return compose.pretraining_config(
        args.model,
        args.schedule,
        shards,
        prompts=prompts,
        saliency_prompt=compose.parse_saliency_prompt(args.saliency_prompt),
        pseudo_classes=args.pseudo_classes,
        image_root=args.image_root,
        overrides=run_overrides(args),
    )


@one_per_gpu("pipelines.pretrain")
def main(args: argparse.Namespace) -> None:
    device = choose_device(args.device)
    # MMDetection takes seconds to import; `--help` and mistyped options need not wait for it.
    device = choose_device(args.device)
    with cli.quiet_imports():
        from stage1_proposals.common.errors import UserError
        from stage1_proposals.shards import ShardSet
        from stage2_training.runs import initial_weights as initialisation
        from stage2_training.runs import train as training
        from stage2_training.runs.work_dir import WorkDir

    shards = ShardSet.open(args.shards)
    if shards.image_count == 0 or shards.proposal_count == 0:
        raise UserError(f"{args.shards}: holds no proposals to train on; `make inspect SHARDS={args.shards}` says why")
    config = compose_config(args, shards)
    if args.backbone == "scratch":
        start = initialisation.scratch()
    elif args.backbone or args.backbone_weights:
        start = initialisation.backbone(args.backbone or shards.backbone.name, args.backbone_weights)
    else:
        start = initialisation.stage1_backbone(shards)

    work = WorkDir(args.work_dir or initialisation.pretraining_dir(args.model, args.prompts == "on"))
    plain = "" if args.prompts == "on" else " without prompts"
    purpose = f"Pre-training {args.model}{plain} on {shards.image_count:,} images ({device})"
    epochs = {"epochs": config.train_cfg.max_epochs}
    result = training.train(work, config, start, purpose, lambda: epochs, args.command, args.cfg_options)
    print(f"Pre-trained: {result.checkpoint}")


if __name__ == "__main__":
    sys.exit(cli.run(main, build_parser()))
