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


def _no_query_map(returned: Any, size: tuple[int, int]) -> Tensor:
    raise UserError("saliency_prompt.pool_from 'query_map': this model multiplies no map with its queries; use pyramid")


@dataclass(frozen=True)
class QueryDecoder:
    """Where a detector keeps what Saliency Prompt needs.

    Attributes:
        learned: the learned queries (N, C), which prompts are compared with (Eq. 6).
        layers: the decoder layers or update stages, in order; or one module that runs them all.
        argument: the parameter of a layer's `forward` that takes the queries (B, N, C).
        output: from what a layer returns to the queries (B, N, C) that it puts out; from what a module that runs all
            layers returns, to those of each.
        pyramid: the module that makes the features which prompts are pooled from; it runs before the layers.
        levels: from what it returns to those features, each (B, C, h, w), finest first.
        assigners: the `NaNSafeHungarianAssigner`s that match predictions with instances: layer by layer, and within
            a layer image by image. Matches of predictions made before the first layer, if there are any, come first.
        query_map: from what the pyramid returns, and height and width of the padded input, to the map (B, C, h, w)
            that queries are multiplied with for the first prediction; by default there is no such map.
        first_norm: takes the queries when a prediction is made before the first layer; None: there is no such one.
        mask_embedding: makes of the normalised queries the vectors (B, N, C) that `query_map` is multiplied with.
        prompt_channels: D, of the levels, where a linear layer has to make prompts of what is pooled; None: they have
            as many channels as queries.
        self_attention: MMCV's `MultiheadAttention`s by which queries attend to each other; empty: they have another.
    """

    learned: Tensor
    layers: Sequence[nn.Module]
    argument: str
    output: Callable[[Any], Tensor | Sequence[Tensor]]
    pyramid: nn.Module
    levels: Callable[[Any], Sequence[Tensor]]
    assigners: Sequence[Any]
    query_map: Callable[[Any, tuple[int, int]], Tensor] = _no_query_map
    first_norm: nn.Module | None = None
    mask_embedding: nn.Module | None = None
    prompt_channels: int | None = None
    self_attention: Sequence[nn.Module] = ()


@dataclass
class Recording:
    """What happened in one training pass.

    Attributes:
        pyramid: what the decoder's `pyramid` returned.
        prompted: the queries with prompts, (B, N, C).
        queries: that each layer has put out, (B, N, C).
        matches: of each call of an assigner, int64 (N,): each query's instance, counted from 1, or 0 for none.
        instances: of each call of an assigner, the number of instances.
    """

    pyramid: Any = None
    prompted: Tensor | None = None
    queries: list[Tensor] = field(default_factory=list)
    matches: list[Tensor] = field(default_factory=list)
    instances: list[int] = field(default_factory=list)

    def assignments(self, images: int) -> list[Assignment]:
        """The assignment of each layer's predictions, over a batch of so many images.

        Raises:
            ValueError: the assigners were not called once for each layer and image; the adapter is wrong.
        """
        layers = len(self.queries)
        if len(self.matches) not in (layers * images, (layers + 1) * images):
            raise ValueError(f"{layers} layers ran on {images} images, but {len(self.matches)} matches were made")
        matches = torch.stack(self.matches[-layers * images :]).unflatten(0, (layers, images))
        # Every image has as many pairs as it has instances or queries, whichever are fewer.
        pairs = sum(min(instances, matches.shape[-1]) for instances in self.instances[-images:])
        return [_assignment(layer_matches, pairs) for layer_matches in matches]


def _assignment(matches: Tensor, pairs: int) -> Assignment:
    """int64 (B, N), each query's instance, counted from 1, or 0 -> the matched pairs, whose number is known.

    As `nonzero` would find them, but that would wait for the device to count them.
    """
    flat = matches.flatten()
    matched = (flat <= 0).byte().argsort(stable=True)[:pairs]
    queries = matches.shape[1]
    return Assignment(matched // queries, matched % queries, flat[matched] - 1)


@contextmanager
def recording(
    decoder: QueryDecoder,
    add_to_queries: Callable[[Tensor, Any], Tensor],
    add_to_embedding: Callable[[Tensor], Tensor],
) -> Iterator[Recording]:
    """Record one training pass, and add prompts to its queries; all hooks are removed at the end.

    Args:
        decoder: what to hook.
        add_to_queries: from the queries (B, N, C) before the first layer, and what the pyramid returned, to those that
            are used instead: by the first layer, and by the prediction before it, if there is one.
        add_to_embedding: the same for the mask embedding of that prediction.

    Raises:
        UserError: an assigner that cannot report its matches.
    """
    record = Recording()

    def keep_pyramid(module: nn.Module, args: Any, output: Any) -> None:
        if record.pyramid is None:  # copies of the backbone, whose offsets are measured, have its hooks
            record.pyramid = output

    def prompted(queries: Tensor) -> Tensor:
        if record.prompted is None:
            record.prompted = add_to_queries(queries, record.pyramid)
        return record.prompted

    def replace_first_prediction(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        return (prompted(args[0]), *args[1:]) if record.prompted is None else None

    def replace_embedding(module: nn.Module, args: Any, output: Tensor) -> Tensor | None:
        return None if record.queries else add_to_embedding(output)  # later ones are made of what layers put out

    def replace_queries(layer: nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any] | None:
        if record.queries:  # the same layer runs again, in decoders whose layers share weights
            return None
        call = signature(layer.forward).bind(*args, **kwargs)
        call.arguments[decoder.argument] = prompted(call.arguments[decoder.argument])
        return call.args, call.kwargs

    def keep_queries(layer: nn.Module, args: Any, output: Any) -> None:
        queries = decoder.output(output)
        record.queries += [queries] if isinstance(queries, Tensor) else queries

    def keep_match(result: Any) -> None:
        record.matches.append(result.gt_inds)
        record.instances.append(result.num_gts)

    with ExitStack() as cleanup:
        handles = [
            decoder.pyramid.register_forward_hook(keep_pyramid),
            decoder.layers[0].register_forward_pre_hook(replace_queries, with_kwargs=True),
            *(layer.register_forward_hook(keep_queries) for layer in decoder.layers),
        ]
        if decoder.first_norm is not None:
            handles.append(decoder.first_norm.register_forward_pre_hook(replace_first_prediction))
        if decoder.mask_embedding is not None:
            handles.append(decoder.mask_embedding.register_forward_hook(replace_embedding))
        for handle in handles:
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
