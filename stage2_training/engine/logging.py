"""What a run prints: one short line now and then. The log files keep everything."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

from mmengine.hooks import LoggerHook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from stage2_training.engine.distributed import is_rank_zero
from stage2_training.evaluation.scores import AP_NAMES, LOGGED, PLURALS, PREFIXES, RECALL


@HOOKS.register_module()
class ProgressLoggerHook(LoggerHook):
    """MMEngine's logger hook, which also prints a line that fits a terminal every `interval` steps, and the scores.

    Args:
        kwargs: those of `LoggerHook`.
    """

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict[str, Any] | None = None
    ) -> None:
        super().after_train_iter(runner, batch_idx, data_batch, outputs)
        steps = len(runner.train_dataloader)
        if self.every_n_inner_iters(batch_idx, self.interval) or batch_idx + 1 == steps <= self.interval:
            scalars = runner.message_hub.log_scalars
            # `lr` is that of the first parameter group, which may be the slower backbone's.
            rate = scalars.get("train/base_lr", scalars["train/lr"]).current()
            loss, seconds = (scalars[f"train/{name}"].mean(self.interval) for name in ("loss", "time"))
            left = timedelta(seconds=int(runner.message_hub.get_info("eta", 0)))
            _print(
                f"epoch {runner.epoch + 1}/{runner.max_epochs}  step {batch_idx + 1}/{steps}  "
                f"loss {loss:.3f}  lr {rate:.1e}  {seconds:.2f} s/step  {left} left"
            )

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Sequence[Any] | None = None
    ) -> None:
        super().after_val_iter(runner, batch_idx, data_batch, outputs)
        self._print_evaluated(batch_idx, len(runner.val_dataloader))

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Sequence[Any] | None = None
    ) -> None:
        super().after_test_iter(runner, batch_idx, data_batch, outputs)
        self._print_evaluated(batch_idx, len(runner.test_dataloader))

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        super().after_val_epoch(runner, metrics)
        _print_scores(f"epoch {runner.epoch}", metrics or {})

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        super().after_test_epoch(runner, metrics)
        _print_scores("test", metrics or {})

    def _print_evaluated(self, batch_idx: int, batches: int) -> None:
        if self.every_n_inner_iters(batch_idx, self.interval):
            _print(f"evaluating {batch_idx + 1}/{batches}")


def _print(text: str) -> None:
    """Print a line, with the time, from the first process only."""
    if is_rank_zero():
        print(f"{datetime.now():%H:%M:%S}  {text}", flush=True)


def _print_scores(name: str, scores: Mapping[str, float]) -> None:
    indent = "\n" + " " * len(f"12:34:56  {name}")
    _print(f"{name}  {f'{indent}  '.join(score_lines(scores))}")


def score_lines(scores: Mapping[str, float]) -> list[str]:
    """`masks  AP 12.3  AP50 30.1 ...` and `boxes ...`, in percent, without the -1 that means no objects of a size.

    Scores of another metric than ours are one line of names and values.
    """
    lines = []
    for kind, prefix in PREFIXES.items():
        values = {name: scores.get(f"{LOGGED}{prefix}{name}", -1) for name in (*AP_NAMES, RECALL)}
        line = "  ".join(f"{name} {100 * value:4.1f}" for name, value in values.items() if value >= 0)
        lines += [f"{PLURALS[kind]}  {line}"] if line else []
    return lines or ["  ".join(f"{name} {value}" for name, value in scores.items())]


def silence_console(logger: logging.Logger, level: int = logging.WARNING) -> None:
    """Let only records from `level` up through to the terminal; files get all of them."""
    for handler in logger.handlers:
        if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
            handler.setLevel(level)


@contextmanager
def errors_only(logger: logging.Logger) -> Iterator[None]:
    """Keep warnings off the terminal, too, during a call of MMEngine's that warns of what the user cannot change."""
    silence_console(logger, logging.ERROR)
    try:
        yield
    finally:
        silence_console(logger)
