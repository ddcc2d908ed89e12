"""Our parts for MMEngine's runner; importing this package registers them.

A resumable loop of optimizer steps, atomic checkpoints without pickled code, brief progress lines, and data-loading
workers that end with their run.
"""

from stage2_training.engine.checkpoints import (
    AtomicCheckpointHook,
    PlainCheckpointHook,
    use_safe_checkpoint_loader,
)
from stage2_training.engine.distributed import bind_workers
from stage2_training.engine.logging import ProgressLoggerHook, quieten
from stage2_training.engine.loop import ResumableEpochLoop
from stage2_training.engine.optimizer import AccumulatingOptimWrapper
from stage2_training.engine.schedulers import ScaledMultiStepLR, ShortWarmUpLR
from stage2_training.engine.steps import SeededBatchSampler, SeededDataset

__all__ = [
    "AccumulatingOptimWrapper",
    "AtomicCheckpointHook",
    "PlainCheckpointHook",
    "ProgressLoggerHook",
    "ResumableEpochLoop",
    "ScaledMultiStepLR",
    "SeededBatchSampler",
    "SeededDataset",
    "ShortWarmUpLR",
    "bind_workers",
    "quieten",
    "use_safe_checkpoint_loader",
]
