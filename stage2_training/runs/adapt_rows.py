"""Fitting a checkpoint's tensors to a model with other numbers of classes or queries, where their rows allow it."""

import torch
from torch import Tensor

from stage1_proposals.common.checkpoints import Tensors
from stage2_training.saliency_prompt.detectors import DetectorTraits, detector_traits

NOISE = 0.1  # of repeated queries, in deviations of the learned ones


def adapt_rows(weights: Tensors, target: Tensors, traits: DetectorTraits) -> tuple[Tensors, dict[str, str]]:
    """Give tensors of which only the number of rows differs the model's number.

    - Of more queries than the model has, the first are taken. Fewer are repeated in their order, with noise that lets
      equal ones part: what a query has learned of places and sizes in the image serves several.
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
        elif traits.query_rows and traits.query_rows.search(name):
            fitted[name] = _repeat_queries(tensor, wanted)
            how = f"the first of {rows} queries" if rows > wanted else f"{rows} queries repeated with noise"
            adapted[name] = f"{wanted} queries: {how}"
    return fitted, adapted


def _repeat_queries(queries: Tensor, wanted: int) -> Tensor:
    """The first `wanted` queries (N, ...); past the last, they begin again, with noise."""
    repeated = queries[torch.arange(wanted) % len(queries)]
    again = repeated[len(queries) :]
    if len(queries) > 1 and len(again):
        noise = torch.randn(again.shape, generator=torch.Generator().manual_seed(0), dtype=again.dtype)
        again += NOISE * queries.std(dim=0) * noise
    return repeated


def queries_in(weights: Tensors, detector: str) -> int | None:
    """How many queries a checkpoint of a detector has; None: none are found."""
    rows = detector_traits(detector).query_rows
    return next((len(tensor) for name, tensor in weights.items() if rows and rows.search(name)), None)
