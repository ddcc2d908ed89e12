"""Training targets of a batch: instances padded to one tensor, at the resolution of the predictions."""

from collections.abc import Sequence
from typing import NamedTuple

from mmdet.structures import DetDataSample
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from stage2_training.data.run_length_masks import masks_at


class InstanceTargets(NamedTuple):
    """The batch's instances; rows from `counts[b]` on are padding."""

    masks: Tensor  # float32 (B, L, h, w), in [0, 1]: the share of a pixel that the instance covers
    labels: Tensor  # int64 (B, L)
    counts: list[int]  # instances of each image


def instance_targets(batch_data_samples: Sequence[DetDataSample], size: tuple[int, int]) -> InstanceTargets:
    """Collect `gt_instances`, masks bilinearly resized from the padded input to `size` (h, w).

    L is the largest number of instances in an image, and at least 1, so that a batch without any
    instance needs no special case.
    """
    masks, labels = [], []
    for sample in batch_data_samples:
        instances = sample.gt_instances
        masks.append(masks_at(instances.masks, size, instances.labels.device))
        labels.append(instances.labels)
    counts = [len(each) for each in labels]
    padded_masks, padded_labels = (pad_sequence(masks, batch_first=True), pad_sequence(labels, batch_first=True))
    if max(counts) == 0:
        padded_masks = padded_masks.new_zeros(len(counts), 1, *size)
        padded_labels = padded_labels.new_zeros(len(counts), 1)
    return InstanceTargets(padded_masks, padded_labels, counts)
