"""What a user asks for with `table` or `figure`: the options of both."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from typing import Any

import click

from pipelines.experiments.execute import Workspace
from pipelines.experiments.scales import DEMO, SCALES, Scale
from pipelines.options import (
    NON_NEGATIVE,
    PATH,
    POSITIVE,
    Decorator,
    Function,
    device_option,
    words_option,
)
from stage1_proposals.common.errors import UserError


@dataclass(frozen=True)
class Experiment:
    """The options that tables and figures share: at which scale, with which seeds, and how it is run."""

    scale: Scale
    seeds: Sequence[int]
    workspace: Workspace
    jobs: int = 1
    dry_run: bool = False


def _experiment(
    scale: str, seeds: Sequence[int], jobs: int, dry_run: bool, work_dir: Path, freesolo: Path | None, **values: Any
) -> Experiment:
    """The experiment of a command line.

    Raises:
        UserError: `--count` without the demo set, or FreeSOLO's masks do not exist.
    """
    chosen = SCALES[scale]
    if values["count"] and chosen.images is None:
        raise UserError(f"--count goes with --scale demo: at {scale} scale the images are the datasets'")
    if freesolo and not freesolo.is_file():
        raise UserError(f"--freesolo {freesolo}: no such file")
    changes = {name: values[name] for name in ("pretrain_epochs", "finetune_epochs") if values[name]}
    if values["count"]:
        changes["images"] = values["count"]
    chosen = replace(chosen, freesolo=str(freesolo.resolve()) if freesolo else None, **changes)
    workspace = Workspace(work_dir / scale, values["device"], values["gpus"], values["batch_size"])
    return Experiment(chosen, list(dict.fromkeys(seeds)), workspace, jobs, dry_run)


def experiment_options(function: Function) -> Function:
    """The options of tables and figures; the command gets them as one `experiment`."""
    options: dict[str, Decorator] = {
        "scale": click.option("--scale", type=click.Choice(list(SCALES)), default=DEMO.name, show_default=True),
        "seeds": words_option("--seeds", type=NON_NEGATIVE, default=(0,), metavar="SEED", help="Default: 0."),
        "jobs": click.option(
            "--jobs", type=POSITIVE, default=1, metavar="N", help="Runs at once, each on its share of the cores."
        ),
        "dry_run": click.option("--dry-run", is_flag=True, help="Print the runs and their commands only."),
        "work_dir": click.option(
            "--work-dir",
            type=PATH,
            default=Path("work_dirs/experiments"),
            show_default=True,
            help="Everything goes to WORK_DIR/SCALE; finished runs in it are used.",
        ),
        "device": device_option,
        "gpus": click.option("--gpus", type=POSITIVE, default=1, metavar="N", help="Processes of training."),
        "batch_size": click.option(
            "--batch-size", type=POSITIVE, help="Images of a process at a time; the total batch stays."
        ),
        "count": click.option(
            "--count",
            nargs=3,
            type=POSITIVE,
            metavar="UNLABELED TRAIN TEST",
            help=f"Images of the demo set. Default: {' '.join(map(str, DEMO.images or ()))}.",
        ),
        "pretrain_epochs": click.option("--pretrain-epochs", type=POSITIVE, help="Default: the scale's."),
        "finetune_epochs": click.option("--finetune-epochs", type=POSITIVE, help="At most. Default: the scale's."),
        "freesolo": click.option(
            "--freesolo", type=PATH, help="COCO JSON of FreeSOLO's masks of the unlabeled images, for Table 7."
        ),
    }

    @wraps(function)
    def collected(**settings: Any) -> Any:
        values = {name: settings.pop(name) for name in options}
        return function(experiment=_experiment(**values), **settings)

    for option in reversed(options.values()):  # shown by `--help` in this order
        collected = option(collected)
    return collected
