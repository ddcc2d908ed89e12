"""Running MMEngine: resumable loop, plain checkpoints, quiet terminal, bound workers; importing this registers them."""

from stage2_training.engine.checkpoints import PlainCheckpointHook, read_checkpoint, read_weights, weights_in
from stage2_training.engine.console import BriefLogProcessor, quieten
from stage2_training.engine.loop import ResumableEpochLoop
from stage2_training.engine.workers import bind_workers

__all__ = [
    "BriefLogProcessor",
    "PlainCheckpointHook",
    "ResumableEpochLoop",
    "bind_workers",
    "quieten",
    "read_checkpoint",
    "read_weights",
    "weights_in",
]
