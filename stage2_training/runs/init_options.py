"""What fine-tuning's `--init` may name, which options go with it, and whether checkpoints and runs are there.

Needs no PyTorch, which takes long to import.
"""

from collections.abc import Sequence
from pathlib import Path

from stage1_proposals.backbones.catalogue import CATALOGUE
from stage1_proposals.common.errors import UserError

# How a backbone was trained, as in the catalogue's names: `densecl` is `densecl_r50` for a ResNet-50.
BACKBONES = ("imagenet", "densecl", "swav", "mocov2")
DETECTORS = ("sp", "pseudo", "coco")
RUN_CONFIG = "config.py"  # in each run's work directory


def check_init(name: str, *, checkpoint: str | None = None, weights: str | None = None) -> None:
    """Check `--init` and the options that go with it, before anything is imported or read.

    Args:
        name, checkpoint, weights: as `initial_weights.by_name`.

    Raises:
        UserError: no such name or file, or options that do not go together.
    """
    is_backbone = name in BACKBONES or name in CATALOGUE
    if checkpoint and name not in DETECTORS:
        raise UserError(
            f"--checkpoint goes with --init {_either(DETECTORS)}, not {name}; or pass the file as --init FILE"
        )
    if weights and not is_backbone:
        raise UserError(f"--weights goes with --init {_either(BACKBONES)}, not {name}")
    if weights and not Path(weights).is_file():
        raise UserError(f"backbone weights {weights}: no such file")
    if checkpoint:
        check_checkpoint(checkpoint)
    if not (is_backbone or name == "scratch" or name in DETECTORS or Path(name).is_file()):
        raise UserError(f"--init {name}: use {_either(('scratch', *BACKBONES, *DETECTORS))}, or a checkpoint's file")


def check_checkpoint(source: str) -> None:
    """Check that there is such a checkpoint's file or run's directory.

    Raises:
        UserError: there is none.
    """
    if not Path(source).exists():
        raise UserError(f"{source}: no such checkpoint")


def check_run(work_dir: str | Path) -> None:
    """Check that a run was started in a work directory.

    Raises:
        UserError: none was.
    """
    if not Path(work_dir, RUN_CONFIG).is_file():
        raise UserError(f"{Path(work_dir)}: no run here (no {RUN_CONFIG})")


def _either(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"
