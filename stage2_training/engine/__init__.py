"""Running MMEngine: resumable loop of optimizer steps, whole and plain checkpoints, quiet terminal, bound workers.

Importing this registers them.
"""

from stage2_training.engine.checkpoints import (
    AtomicCheckpointHook,
    PlainCheckpointHook,
    use_safe_checkpoint_loader,
)
from stage2_training.engine.distributed import bind_workers
from stage2_training.engine.logging import BriefLogProcessor, quieten
from stage2_training.engine.loop import ResumableEpochLoop
from stage2_training.engine.optimizer import AccumulatingOptimWrapper
from stage2_training.engine.steps import PlacedBatches, PlacedDataset

__all__ = [
    "AccumulatingOptimWrapper",
    "AtomicCheckpointHook",
    "BriefLogProcessor",
    "PlacedBatches",
    "PlacedDataset",
    "PlainCheckpointHook",
    "ResumableEpochLoop",
    "bind_workers",
    "quieten",
    "use_safe_checkpoint_loader",
]
