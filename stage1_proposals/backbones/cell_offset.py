"""Where a cell of the feature map looks: one of a padded ResNet at its corner, half a cell off its centre."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_CELLS = 7  # of a side of the trial input; odd, so that one is in the middle


def shift_input(images: Tensor, step: int, offset: int) -> Tensor:
    """Pad images so that the cells of their features look at their own centres.

    Args:
        images: (B, C, H, W).
        step: the images' sides are multiples of this.
        offset: of the backbone's cells, in pixels, see `cell_offset`.

    Returns:
        (B, C, H + step, W + step), the edges repeated; `drop_shifted` takes the features of the images themselves.
    """
    before = offset % step
    return F.pad(images, (before, step - before, before, step - before), mode="replicate")


def drop_shifted(features: Tensor, step: int, shifted: Tensor, offset: int) -> Tensor:
    """The features of images, out of those (B, D, h, w) of the images that `shift_input` has padded by `step`."""
    rows = features.shape[2] - features.shape[2] * step // shifted.shape[2]
    columns = features.shape[3] - features.shape[3] * step // shifted.shape[3]
    if offset < 0:  # the padding before the image is a whole step less the offset
        return features[:, :, -rows:, -columns:]
    return features[:, :, :rows, :columns]


def measure_offset(trunk: nn.Module, stride: int) -> float:
    """How far down and to the right of its centre a cell looks, in pixels: the centre of its gradient on random input.

    Args:
        trunk: images (1, 3, H, W) to features (1, D, h, w); in evaluation mode, with any weights.
        stride: pixels per cell.
    """
    generator = torch.Generator().manual_seed(0)
    side = _CELLS * stride
    image = torch.randn(1, 3, side, side, generator=generator).requires_grad_()
    with torch.enable_grad():
        cell = trunk(image)[0, :, _CELLS // 2, _CELLS // 2]
        (cell * torch.randn(len(cell), generator=generator)).sum().backward()  # checkpointed layers need `backward`
    assert image.grad is not None
    density = image.grad[0].abs().sum(0).double()
    pixels = torch.arange(side, dtype=torch.float64) - (side - 1) / 2
    return float((density.sum(0) @ pixels + density.sum(1) @ pixels) / (2 * density.sum()))


def cell_offset(trunk: nn.Module, stride: int) -> int:
    """The offset of a trunk's cells in pixels, rounded to half a cell: padding puts a cell's view at centre or corner.

    Only strided layers with padding move it, so that others are not measured: a ViT's patches lie where they lie.
    """
    strided = [m for m in trunk.modules() if isinstance(m, nn.Conv2d) and max(m.stride) > 1]
    if not any(m.padding != (0, 0) for m in strided):
        return 0
    return round(2 * measure_offset(trunk, stride) / stride) * stride // 2
