"""`make figure`: draw a figure of the paper, making first the runs it lacks. Run again, it goes on."""

import argparse
import sys

from pipelines import cli, steps
from pipelines.experiments import options
from pipelines.experiments.drawings import FIGURES, arguments, drawings_at, figure_runs
from pipelines.experiments.execution import execute, print_plan
from stage1_proposals.common.system import choose_device


def build_parser() -> argparse.ArgumentParser:
    titles = "; ".join(f"{number}: {figure.title}" for number, figure in FIGURES.items())
    parser = cli.Parser(prog="python -m pipelines.figures", description=__doc__, epilog=titles)
    parser.add_argument("figure", type=int, choices=FIGURES, metavar="FIGURE", help=f"{min(FIGURES)}-{max(FIGURES)}")
    options.add_options(parser)
    return parser


def main(args: argparse.Namespace) -> None:
    figure, scale = FIGURES[args.figure], options.scale_of(args)
    seeds, workspace = options.seeds_of(args), options.workspace_of(args)
    drawings = drawings_at(figure, scale)
    runs = figure_runs(figure, scale, seeds)
    commands = [arguments(drawing, scale, seeds, workspace) for drawing in drawings]
    if args.dry_run:
        print_plan(runs, workspace)
        print("Then:", *(f"     $ {steps.typed('draw', words)}" for words in commands), sep="\n")
        return
    execute(runs, workspace, args.jobs)
    for drawing, words in zip(drawings, commands, strict=True):
        steps.step(drawing.name, "draw", *words)
    # MMEngine takes seconds to import; `--help` and mistyped options need not wait for it.
    from pipelines.experiments import captions

    captioned = captions.caption(figure, scale, seeds, workspace, choose_device(args.device))
    path = captions.write(captioned, workspace.root / "figures")
    print(f"\n{captions.as_text(captioned)}\n")
    print(f"Written to {path}, with its commands, and to {path.with_suffix('.about.json')}")


if __name__ == "__main__":
    sys.exit(cli.run(main, build_parser()))
