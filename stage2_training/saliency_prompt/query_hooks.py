"""Records a training pass of one of MMDetection's detectors and adds prompts to its queries, without touching its code.

The layers are reached by torch's forward hooks, the assignments by the observer of `NaNSafeHungarianAssigner`.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from stage1_proposals.common.errors import UserError
from stage2_training.knet.assignment import Assignment


@dataclass(frozen=True)
class QueryDecoder:
    """Where a detector keeps what Saliency Prompt needs.

    Attributes:
        learned: the learned queries (N, C), which prompts are compared with (Eq. 6).
        layers: the decoder layers or update stages, in order.
        argument: the parameter of a layer's `forward` that takes the queries (B, N, C).
        output: from what a layer returns to the queries (B, N, C) that it puts out.
        pyramid: the module that makes the features which prompts are pooled from; it runs before the layers.
        levels: from what it returns to those features, each (B, C, h, w), finest first.
        assigners: the `NaNSafeHungarianAssigner`s that match predictions with instances: layer by layer, and within
            a layer image by image. Matches of predictions made before the first layer, if there are any, come first.
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
    """What happened in one training pass.

    Attributes:
        levels: of the feature pyramid, (B, C, h, w), finest first.
        queries: that each layer has put out, (B, N, C).
        matches: of each call of an assigner, int64 (N,): each query's instance, counted from 1, or 0 for none.
    """

    levels: Sequence[Tensor] = ()
    queries: list[Tensor] = field(default_factory=list)
    matches: list[Tensor] = field(default_factory=list)

    def assignments(self, images: int) -> list[Assignment]:
        """The assignment of each layer's predictions, over a batch of so many images.

        Raises:
            ValueError: the assigners were not called once for each layer and image; the adapter is wrong.
        """
        layers = len(self.queries)
        if len(self.matches) not in (layers * images, (layers + 1) * images):
            raise ValueError(f"{layers} layers ran on {images} images, but {len(self.matches)} matches were made")
        matches = torch.stack(self.matches[-layers * images :]).unflatten(0, (layers, images))
        return [_assignment(layer_matches) for layer_matches in matches]


def _assignment(matches: Tensor) -> Assignment:
    """int64 (B, N), each query's instance, counted from 1, or 0 -> the matched pairs."""
    image, query = (matches > 0).nonzero(as_tuple=True)
    return Assignment(image, query, matches[image, query] - 1)


@contextmanager
def recording(decoder: QueryDecoder, add_prompts: Callable[[Tensor, Sequence[Tensor]], Tensor]) -> Iterator[Recording]:
    """Record one training pass, and replace the queries that enter the first layer; all hooks are removed at the end.

    Args:
        decoder: what to hook.
        add_prompts: from the queries (B, N, C) that would enter the first layer, and the pyramid's levels, to those
            that enter it instead.

    Raises:
        UserError: an assigner that cannot report its matches.
    """
    record = Recording()

    def keep_levels(module: nn.Module, args: Any, output: Any) -> None:
        record.levels = decoder.levels(output)

    def replace_queries(layer: nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any] | None:
        if record.queries:  # the same layer runs again, in decoders whose layers share weights
            return None
        call = signature(layer.forward).bind(*args, **kwargs)
        call.arguments[decoder.argument] = add_prompts(call.arguments[decoder.argument], record.levels)
        return call.args, call.kwargs

    def keep_queries(layer: nn.Module, args: Any, output: Any) -> None:
        record.queries.append(decoder.output(output))

    def keep_match(result: Any) -> None:
        record.matches.append(result.gt_inds)

    with ExitStack() as cleanup:
        for handle in (
            decoder.pyramid.register_forward_hook(keep_levels),
            decoder.layers[0].register_forward_pre_hook(replace_queries, with_kwargs=True),
            *(layer.register_forward_hook(keep_queries) for layer in decoder.layers),
        ):
            cleanup.callback(handle.remove)
        for assigner in decoder.assigners:
            if not hasattr(assigner, "observer"):
                raise UserError(
                    f"the model's assigner {type(assigner).__name__} does not report its matches, which kernel "
                    f"supervision needs; use NaNSafeHungarianAssigner"
                )
            assigner.observer = keep_match
            cleanup.callback(setattr, assigner, "observer", None)
        yield record
