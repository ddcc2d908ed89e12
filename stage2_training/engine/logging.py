"""What a training run prints: one short line now and then. The log file keeps everything."""

import logging
from collections.abc import Mapping
from datetime import timedelta

from mmengine.registry import LOG_PROCESSORS
from mmengine.runner import LogProcessor, Runner

from stage2_training.evaluation.scores import AP_NAMES, LOGGED, PLURALS, PREFIXES, RECALL

TIME_WIDTH = len("12:34:56  ")


@LOG_PROCESSORS.register_module()
class BriefLogProcessor(LogProcessor):
    """MMEngine's log processor with lines that fit a terminal; all values still go to the JSON log."""

    def get_log_after_iter(self, runner: Runner, batch_idx: int, mode: str) -> tuple[dict, str]:
        tag, line = super().get_log_after_iter(runner, batch_idx, mode)
        if mode != "train":
            size = self._get_dataloader_size(runner, mode)
            return tag, f"evaluating {batch_idx + 1}/{size}"
        left = timedelta(seconds=int(runner.message_hub.get_info("eta", 0)))
        rate = tag.get("base_lr", tag["lr"])  # `lr` is the first parameter group's, here the slower backbone's
        line = (
            f"epoch {runner.epoch + 1}/{runner.max_epochs}  step {batch_idx + 1}/{len(runner.train_dataloader)}  "
            f"loss {tag['loss']:.3f}  lr {rate:.1e}  {tag['time']:.2f} s/step  {left} left"
        )
        return tag, line

    def get_log_after_epoch(
        self, runner: Runner, batch_idx: int, mode: str, with_non_scalar: bool = False
    ) -> tuple[dict, str]:
        tag, line = super().get_log_after_epoch(runner, batch_idx, mode, with_non_scalar)
        name = f"epoch {runner.epoch}" if mode == "val" else "test"
        scores = score_lines(tag)
        indent = "\n" + " " * (TIME_WIDTH + len(name))
        return tag, f"{name}  {f'{indent}  '.join(scores)}" if scores else line


def score_lines(scores: Mapping[str, float]) -> list[str]:
    """`masks  AP 12.3  AP50 30.1 ...`, and `boxes ...`, in percent; -1, no objects of a size, is left out."""
    lines = []
    for kind, prefix in PREFIXES.items():
        found = {name: scores.get(f"{LOGGED}{prefix}{name}", -1) for name in (*AP_NAMES, RECALL)}
        values = "  ".join(f"{name} {100 * value:4.1f}" for name, value in found.items() if value >= 0)
        lines += [f"{PLURALS[kind]}  {values}"] if values else []
    return lines


# Warnings about MMEngine's own calls, and about frozen layers being frozen.
NEEDLESS = ("will be deprecated", "is skipped since its requires_grad=False")


def _is_progress(record: logging.LogRecord) -> bool:
    """Warnings, and the lines MMEngine's logger hook writes about losses and scores."""
    if record.levelno >= logging.WARNING:
        return not any(phrase in record.getMessage() for phrase in NEEDLESS)
    return record.module == "logger_hook" and not record.getMessage().startswith("Exp name")


def quieten(logger: logging.Logger) -> None:
    """Let only progress and warnings of a run's logger through to the terminal."""
    for handler in logger.handlers:
        if type(handler) is logging.StreamHandler:
            handler.addFilter(_is_progress)
            handler.setFormatter(logging.Formatter("%(asctime)s  %(message)s", datefmt="%H:%M:%S"))
