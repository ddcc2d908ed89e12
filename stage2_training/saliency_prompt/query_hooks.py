"""Watching one of MMDetection's detectors compute its losses, and putting prompts in, without touching its code."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from stage2_training.knet.assignment import Assignment


@dataclass(frozen=True)
class QueryDecoder:
    """Where a detector keeps what Saliency Prompt needs; all that an adapter has to say.

    Attributes:
        learned: the learned queries (N, C), which prompts are compared with (Eq. 6).
        layers: the decoder layers or update stages, in order.
        argument: the parameter of a layer's `forward` by which the queries (B, N, C) come in.
        output: from what a layer returns to the queries (B, N, C) that it puts out.
        pyramid: the module that makes the features which prompts are read from; it runs before the layers.
        levels: from what it returns to those features, each (B, C, h, w), finest first.
        assigners: MMDetection's, which match predictions with instances: a layer after the other, and in each the
            images in order. Predictions made before the first layer, if they are matched at all, come first.
    """

    learned: Tensor
    layers: Sequence[nn.Module]
    argument: str
    output: Callable[[Any], Tensor]
    pyramid: nn.Module
    levels: Callable[[Any], Sequence[Tensor]]
    assigners: Sequence[Any]


@dataclass
class Recording:
    """What one pass has shown.

    Attributes:
        levels: of the feature pyramid, (B, C, h, w), finest first.
        queries: that each layer has put out, (B, N, C).
        matched: of each call of an assigner, int64 (N,): the number of the query's instance, from 1 up, or 0.
    """

    levels: Sequence[Tensor] = ()
    queries: list[Tensor] = field(default_factory=list)
    matched: list[Tensor] = field(default_factory=list)

    def assignments(self, images: int) -> list[Assignment]:
        """The assignment of each layer's own predictions, over a batch of so many images.

        Raises:
            ValueError: the assigners were not called once for each layer and image; the adapter is wrong.
        """
        layers = len(self.queries)
        if len(self.matched) not in (layers * images, (layers + 1) * images):
            raise ValueError(f"{layers} layers ran on {images} images, but {len(self.matched)} matches were made")
        numbers = torch.stack(self.matched[-layers * images :]).unflatten(0, (layers, images))
        return [_assignment(each) for each in numbers]


def _assignment(numbers: Tensor) -> Assignment:
    """int64 (B, N), each query's instance from 1 up, or 0 -> the matched pairs."""
    image, query = (numbers > 0).nonzero(as_tuple=True)
    return Assignment(image, query, numbers[image, query] - 1)


@contextmanager
def recording(decoder: QueryDecoder, prompted: Callable[[Tensor, Sequence[Tensor]], Tensor]) -> Iterator[Recording]:
    """Record one training pass, and exchange the queries that enter the first layer; nothing stays behind.

    Args:
        decoder: what to watch.
        prompted: from the queries (B, N, C) that would enter the first layer, and the pyramid's levels, to those
            that shall.
    """
    record = Recording()

    def keep_levels(module: nn.Module, args: Any, output: Any) -> None:
        record.levels = decoder.levels(output)

    def add_prompts(layer: nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any] | None:
        if record.queries:  # a layer that runs again, as in decoders whose layers are one
            return None
        call = signature(layer.forward).bind(*args, **kwargs)
        call.arguments[decoder.argument] = prompted(call.arguments[decoder.argument], record.levels)
        return call.args, call.kwargs

    def keep_queries(layer: nn.Module, args: Any, output: Any) -> None:
        record.queries.append(decoder.output(output))

    with ExitStack() as installed:
        for handle in (
            decoder.pyramid.register_forward_hook(keep_levels),
            decoder.layers[0].register_forward_pre_hook(add_prompts, with_kwargs=True),
            *(layer.register_forward_hook(keep_queries) for layer in decoder.layers),
        ):
            installed.callback(handle.remove)
        for assigner in decoder.assigners:
            installed.enter_context(_matches_kept(assigner, record.matched))
        yield record


@contextmanager
def _matches_kept(assigner: Any, matched: list[Tensor]) -> Iterator[None]:
    """Until the end, `assigner.assign` also appends what it finds."""
    assign = assigner.assign

    def assign_and_keep(*args: Any, **kwargs: Any) -> Any:
        result = assign(*args, **kwargs)
        matched.append(result.gt_inds)
        return result

    assigner.assign = assign_and_keep
    try:
        yield
    finally:
        del assigner.assign  # the instance's, which hid the class's
