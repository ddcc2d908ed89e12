"""From shards to training batches. Importing this package registers the dataset, the transforms and the samplers."""

from stage2_training.data.dataset import PseudoLabelDataset
from stage2_training.data.rle_masks import RunLengthMasks, masks_at
from stage2_training.data.sampler import ResumableSampler, ShardSampler
from stage2_training.data.transforms import (
    BoxesFromMasks,
    LoadPseudoLabels,
    LoadRGBImage,
    PackPseudoLabels,
    RandomTile,
)

__all__ = [
    "BoxesFromMasks",
    "LoadPseudoLabels",
    "LoadRGBImage",
    "PackPseudoLabels",
    "PseudoLabelDataset",
    "RandomTile",
    "ResumableSampler",
    "RunLengthMasks",
    "ShardSampler",
    "masks_at",
]
