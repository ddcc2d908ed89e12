"""Whether a model in pre-training reads its prompts: its losses with them, with others, and without."""

import argparse
from itertools import islice
from pathlib import Path

from pipelines import cli
from stage1_proposals.common.system import choose_device


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--work-dir", required=True, metavar="DIR", help="of a pre-training run with prompts, finished or not"
    )
    parser.add_argument("--checkpoint", help="a file of it (default: the latest)")
    parser.add_argument("--batches", type=cli.at_least(1), default=8, help="of images that are looked at (default: 8)")
    parser.add_argument("--device", choices=["cpu", "cuda"], help="default: the GPU when there is one")


def main(args: argparse.Namespace) -> None:
    choose_device(args.device)
    # MMDetection takes seconds to import; `--help` and mistyped options need not wait for it.
    choose_device(args.device)
    with cli.quiet_imports():
        from pipelines.text_table import format_table
        from stage1_proposals.common.errors import UserError
        from stage2_training.inference import predictor as inference
        from stage2_training.runs import train as training
        from stage2_training.runs.runner import QuietRunner
        from stage2_training.runs.work_dir import WorkDir
        from stage2_training.saliency_prompt.diagnostics import NONE, OWN, SWAPPED, diagnose_prompts

    work = WorkDir(args.work_dir)
    config = work.read_config()
    settings = config.model.get("saliency_prompt", {"matching": "none"})
    if settings["matching"] == "none":
        raise UserError(f"{args.work_dir}: a run without prompts")
    checkpoint = Path(args.checkpoint) if args.checkpoint else work.require_checkpoint()
    model = inference.load_detector(config, checkpoint)
    loader = QuietRunner.build_dataloader(
        {**config.train_dataloader, "num_workers": 0, "persistent_workers": False}, seed=config.randomness.seed
    )
    with training.plain_user_errors(work.path):
        use = diagnose_prompts(
            model, (inference.preprocess(model, batch, training=True) for batch in islice(loader, args.batches))
        )
    print(f"{checkpoint} on {use.images} images\n")
    rows = [[name, *(f"{loss[given]:.3f}" for given in (OWN, SWAPPED, NONE))] for name, loss in use.losses.items()]
    print(
        format_table(
            ("loss, each query having", "its own prompt", "another image's", "none"), rows, markdown=False, left=1
        )
    )
    hits = ", ".join(f"{100 * share:.1f} %" for share in use.hits)
    print(
        f"\nPrompts have {use.length:.3g} times the length of the query that they are added to (median).\n"
        f"The query matched with an instance has that instance's prompt in {hits} of them, by stage; at random "
        f"{100 * use.chance:.1f} %."
    )
