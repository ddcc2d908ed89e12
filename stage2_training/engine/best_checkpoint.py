"""Keeping the checkpoint of the best validation AP, and ending a run that no longer improves.

MMEngine's hooks for both keep their counts in memory alone, so a run that resumes would count an evaluation twice.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from stage1_proposals.common.files import write_json
from stage2_training.engine.checkpoints import BACKEND
from stage2_training.engine.distributed import is_rank_zero
from stage2_training.evaluation.scores import LOGGED

RECORD = "best.json"
# The first of these that a model's evaluation has: masks, or boxes alone; ours, or MMDetection's `CocoMetric`.
MONITORED = ("AP", "segm_mAP", "box_AP", "bbox_mAP")


@dataclass
class Best:
    """The best evaluation of a run so far.

    Attributes:
        checkpoint: name of the file in the run's directory.
        epoch: after which it was evaluated.
        metric, score: the name in `MONITORED`, and its value, above 0.
        worse: epochs of later evaluations, none of them better.
    """

    checkpoint: str
    epoch: int
    metric: str
    score: float
    worse: list[int] = field(default_factory=list)

    @classmethod
    def read(cls, directory: Path) -> "Best | None":
        """That of a run's directory; None where none is recorded, or its checkpoint is missing."""
        try:
            best = cls(**json.loads((directory / RECORD).read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError, TypeError):
            return None
        return best if (directory / best.checkpoint).is_file() else None


@HOOKS.register_module()
class BestCheckpointHook(Hook):
    """Keeps the weights with the best validation AP as `best_N.pth` of step N, beside the checkpoints to resume from.

    The checkpoint is written first, then `best.json` that names it, and then the one before is deleted: an
    interruption leaves either. An evaluation that is repeated after it counts once.

    Args:
        patience: evaluations without a better AP after which training ends; None trains to the last epoch. It begins
            to count when something was found: AP above 0.
    """

    priority = "VERY_LOW"  # after MMEngine's EMAHook has put the trained weights back

    def __init__(self, patience: int | None = None) -> None:
        self.patience = patience
        self.best: Best | None = None

    def before_train(self, runner: Runner) -> None:
        """Take up what the run has recorded before it was interrupted."""
        self.best = Best.read(Path(runner.work_dir))

    def after_val_epoch(self, runner: Runner, metrics: Mapping[str, float] | None = None) -> None:
        """Keep the weights if they are better than all before, or end the training."""
        scores = {name: (metrics or {}).get(LOGGED + name) for name in MONITORED}
        metric, score = next(((name, score) for name, score in scores.items() if score is not None), ("", 0.0))
        epoch, best = runner.epoch, self.best
        if score > (best.score if best else 0):
            self._keep(runner, Best(f"best_{runner.iter}.pth", epoch, metric, float(score)))
        elif best and epoch > best.epoch:
            best.worse = sorted({*best.worse, epoch})
            self._record(runner)
            if self.patience and len(best.worse) >= self.patience:
                runner.logger.info(f"No better {best.metric} than after epoch {best.epoch}: training ends")
                runner.train_loop.stop_training = True

    def _keep(self, runner: Runner, best: Best) -> None:
        directory, self.best = Path(runner.work_dir), best
        runner.save_checkpoint(
            *(str(directory), best.checkpoint),
            save_optimizer=False,
            save_param_scheduler=False,
            backend_args={"backend": BACKEND},
        )
        self._record(runner)
        if is_rank_zero():
            for old in directory.glob("best_*.pth"):
                if old.name != best.checkpoint:
                    old.unlink()

    def _record(self, runner: Runner) -> None:
        if is_rank_zero() and self.best:
            write_json(Path(runner.work_dir) / RECORD, asdict(self.best))


def describe_stop(directory: Path, last_epoch: int, epochs: int) -> dict[str, Any]:
    """What a finished run's result says of its best evaluation, and of an early end; empty without evaluations.

    Args:
        last_epoch: the last that was evaluated.
        epochs: that were planned.
    """
    best = Best.read(directory)
    if best is None:
        return {}
    found: dict[str, Any] = {
        "best_checkpoint": str(directory / best.checkpoint),
        "best_epoch": best.epoch,
        f"best_{best.metric}": best.score,
    }
    if last_epoch < epochs:
        found["stopped"] = f"after epoch {last_epoch} of {epochs}: no better in {len(best.worse)} evaluations"
    return found
