"""`make bench`: what the project's parts cost, each beside a plain implementation of the same; and what prompts do.

Every side is measured in this one run, and ratios are printed; seconds alone say little about another machine.
"""

import argparse
import sys

from pipelines import cli
from pipelines.benchmarks import prompts, proposals, streaming, training_step

# Modules with a docstring of one line, `add_options(parser)` and `main(args)`. They are imported for `--help` too, so
# what takes seconds to import is imported in `main`.
BENCHMARKS = {"proposals": proposals, "training": training_step, "streaming": streaming, "prompts": prompts}


def build_parser() -> argparse.ArgumentParser:
    parser = cli.Parser(prog="python -m pipelines.bench", description=__doc__)
    benchmarks = parser.add_subparsers(dest="benchmark", required=True, metavar="BENCHMARK")
    for name, module in BENCHMARKS.items():
        benchmark = benchmarks.add_parser(name, help=module.__doc__, description=module.__doc__)
        module.add_options(benchmark)
        # As the command's own, which would have to stand before the benchmark's name.
        benchmark.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    return parser


def main(args: argparse.Namespace) -> None:
    BENCHMARKS[args.benchmark].main(args)


if __name__ == "__main__":
    sys.exit(cli.run(main, build_parser()))
