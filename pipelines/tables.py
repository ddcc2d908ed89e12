"""`make table`: print a table of results, making first what it lacks. Run again, it goes on."""

import argparse
import sys

from pipelines import cli, proposals_table
from pipelines.experiments import options
from pipelines.experiments.execution import execute, print_plan
from pipelines.experiments.paper import TABLES
from stage1_proposals.common.system import choose_device


def build_parser() -> argparse.ArgumentParser:
    parser = cli.Parser(prog="python -m pipelines.tables", description=__doc__)
    tables = parser.add_subparsers(dest="table", required=True, metavar="TABLE")
    for number, table in TABLES.items():
        of_paper = tables.add_parser(str(number), help=f"the paper's: {table.title}")
        of_paper.description = f"Table {number} of the paper: {table.title}, beside the paper's numbers."
        options.add_options(of_paper)
        of_paper.set_defaults(print_table=print_paper_table)
    proposals_table.add_options(tables.add_parser("proposals", help="class-agnostic AP and recall of shard sets"))
    for parser_of_table in tables.choices.values():
        parser_of_table.add_argument("--markdown", action="store_true", help="as Markdown")
        # As the command's own, which would have to stand before the table's name.
        parser_of_table.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    return parser


def print_paper_table(args: argparse.Namespace) -> None:
    # PyTorch takes seconds to import; `--help` and mistyped options need not wait for it.
    from pipelines.experiments import tabulation

    table, scale = TABLES[int(args.table)], options.scale_of(args)
    seeds, workspace = options.seeds_of(args), options.workspace_of(args)
    runs = tabulation.table_runs(table, scale, seeds)
    if args.dry_run:
        print_plan(runs, workspace)
        return
    execute(runs, workspace, args.jobs)
    tabulated = tabulation.tabulate(table, scale, seeds, workspace, choose_device(args.device))
    path = tabulation.write(tabulated, workspace.root / "tables")
    print(f"\n{tabulation.as_markdown(tabulated) if args.markdown else tabulation.as_text(tabulated)}\n")
    print(f"Written to {path}, with its commands, and to {path.with_suffix('.json')}")


def main(args: argparse.Namespace) -> None:
    args.print_table(args)


if __name__ == "__main__":
    sys.exit(cli.run(main, build_parser()))
