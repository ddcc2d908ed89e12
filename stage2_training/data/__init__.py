"""Shards to training batches; importing this registers the dataset, the transforms and the samplers."""

from stage2_training.data.dataset import PseudoLabelDataset
from stage2_training.data.run_length_masks import RunLengthMasks, masks_at
from stage2_training.data.sampler import ResumableSampler, ShardSampler
from stage2_training.data.transforms import DropVanishedMasks, LoadPhoto, LoadPseudoLabels, PackPseudoLabels

__all__ = [
    "DropVanishedMasks",
    "LoadPhoto",
    "LoadPseudoLabels",
    "PackPseudoLabels",
    "PseudoLabelDataset",
    "ResumableSampler",
    "RunLengthMasks",
    "ShardSampler",
    "masks_at",
]
