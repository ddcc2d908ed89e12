"""Fitting a checkpoint's tensors to a model with other numbers of classes or queries, where their rows allow it."""

from stage1_proposals.common.checkpoints import Tensors
from stage2_training.saliency_prompt.detectors import DetectorTraits


def adapt_rows(weights: Tensors, target: Tensors, traits: DetectorTraits) -> tuple[Tensors, dict[str, str]]:
    """Give tensors of which only the number of rows differs the model's number.

    - A class-agnostic model has one row that makes the masks of all objects: each class gets it.

    Args:
        weights: of a checkpoint, under the model's names.
        target: the model's state dict.
        traits: of the model, which say what the rows of a tensor are.

    Returns:
        All weights, and for each one that was changed, by name, what was done.
    """
    fitted, adapted = dict(weights), {}
    for name, tensor in weights.items():
        if name not in target or not tensor.ndim or tensor.shape[1:] != target[name].shape[1:]:
            continue
        rows, wanted = len(tensor), len(target[name])
        if rows == wanted:
            continue
        if rows == 1 and traits.class_masks and traits.class_masks.search(name):
            fitted[name] = tensor.expand(target[name].shape).clone()
            adapted[name] = f"each of {wanted} classes has the class-agnostic row"
    return fitted, adapted
