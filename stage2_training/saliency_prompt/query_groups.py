"""Groups of queries: those with the same prompt attend to each other, and to no others (UP-DETR)."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


def group_mask(index: Tensor) -> Tensor:
    """Which queries are in different groups, and must not attend to each other: bool (B, N, N).

    Args:
        index: int64 (B, N), each query's prompt.
    """
    return index[:, :, None] != index[:, None, :]


@contextmanager
def masked_attention(modules: Sequence[nn.Module], mask: Callable[[], Tensor | None]) -> Iterator[None]:
    """Give the self-attention of queries a mask while the context lasts, by torch's hooks.

    Args:
        modules: MMCV's `MultiheadAttention`s, which take `attn_mask` and know their number of heads.
        mask: makes the mask, bool (B, N, N), when a module runs: True where a query must not attend to another. None:
            no mask.
    """

    def add_mask(module: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]] | None:
        pairs = mask()
        if pairs is None:
            return None
        return args, {**kwargs, "attn_mask": pairs.repeat_interleave(module.num_heads, dim=0)}  # heads image by image

    handles = [module.register_forward_pre_hook(add_mask, with_kwargs=True) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
