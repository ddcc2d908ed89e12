"""Running MMEngine: resumable loop of optimizer steps, whole and plain checkpoints, quiet terminal, bound workers.

Importing this registers them.
"""

from stage2_training.engine.batches import PlacedBatches, PlacedDataset
from stage2_training.engine.checkpoints import PlainCheckpointHook, read_checkpoint, read_weights, weights_in
from stage2_training.engine.console import BriefLogProcessor, quieten
from stage2_training.engine.loop import ResumableEpochLoop
from stage2_training.engine.optimizer import AccumulatingOptimWrapper
from stage2_training.engine.whole_checkpoints import WholeCheckpointHook
from stage2_training.engine.workers import bind_workers

__all__ = [
    "AccumulatingOptimWrapper",
    "BriefLogProcessor",
    "PlacedBatches",
    "PlacedDataset",
    "PlainCheckpointHook",
    "ResumableEpochLoop",
    "WholeCheckpointHook",
    "bind_workers",
    "quieten",
    "read_checkpoint",
    "read_weights",
    "weights_in",
]
