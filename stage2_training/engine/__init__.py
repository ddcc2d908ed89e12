"""Running MMEngine: resumable loop of optimizer steps, whole and plain checkpoints, quiet terminal, bound workers.

Importing this registers them.
"""

from stage2_training.engine.checkpoints import (
    AtomicCheckpointHook,
    PlainCheckpointHook,
    read_checkpoint,
    read_weights,
    weights_in,
)
from stage2_training.engine.distributed import bind_workers
from stage2_training.engine.logging import BriefLogProcessor, quieten
from stage2_training.engine.loop import ResumableEpochLoop
from stage2_training.engine.optimizer import AccumulatingOptimWrapper
from stage2_training.engine.schedulers import ScaledMultiStepLR, ShortWarmUpLR
from stage2_training.engine.steps import PlacedBatches, PlacedDataset

__all__ = [
    "AccumulatingOptimWrapper",
    "AtomicCheckpointHook",
    "BriefLogProcessor",
    "PlacedBatches",
    "PlacedDataset",
    "PlainCheckpointHook",
    "ResumableEpochLoop",
    "ScaledMultiStepLR",
    "ShortWarmUpLR",
    "bind_workers",
    "quieten",
    "read_checkpoint",
    "read_weights",
    "weights_in",
]
