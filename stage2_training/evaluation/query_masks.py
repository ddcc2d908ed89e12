"""What each query of a detector predicts in an image: the mask of its last stage, whatever its score."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmdet.models.detectors import BaseDetector
from mmdet.structures import DetDataSample
from torch import Tensor

from stage1_proposals.common.errors import UserError
from stage2_training.saliency_prompt.detectors import detector_traits

SIDE = 200  # as in the paper's Figure 6


@torch.no_grad()
def query_masks(model: BaseDetector, images: Tensor, samples: Sequence[DetDataSample]) -> Tensor:
    """Mask probabilities float32 (B, N, 200, 200) of each query's last prediction, in the image without its padding.

    Args:
        model: in evaluation mode; a vanilla detector or its Saliency Prompt variant.
        images: (B, 3, H, W), preprocessed and padded.
        samples: theirs, with `img_shape`.

    Raises:
        UserError: a detector without queries.
    """
    name = type(model).__name__
    read = detector_traits(name).query_masks
    if read is None:
        raise UserError(f"{name}: has no queries whose masks could be drawn")
    logits, boxes = read(model, images, samples)
    image_sizes = images.new_tensor([[*sample.img_shape[::-1], *sample.img_shape[::-1]] for sample in samples])
    if boxes is None:
        height, width = images.shape[-2:]
        grids = _sampling_grids(images.new_tensor([0, 0, width, height]) / image_sizes)
        return F.grid_sample(logits.float(), grids, padding_mode="border", align_corners=False).sigmoid()
    grids = _sampling_grids((boxes / image_sizes[:, None]).flatten(0, 1))
    probabilities = logits.float().sigmoid().flatten(0, 1)[:, None]
    return F.grid_sample(probabilities, grids, align_corners=False).unflatten(0, boxes.shape[:2])[:, :, 0]


def _sampling_grids(boxes: Tensor) -> Tensor:
    """Where the pixels of 200 x 200 images lie in boxes, for `grid_sample`: (M, 200, 200, 2), -1 to 1 inside a box.

    Args:
        boxes: (M, 4): x1, y1, x2, y2 as fractions of the image's width and height. A box without extent gets a little.
    """
    centers = (torch.arange(SIDE, device=boxes.device) + 0.5) / SIDE
    start, end = boxes[:, None, :2], boxes[:, None, 2:]
    extent = (end - start).clamp(min=1e-3 / SIDE)
    x, y = (2 * (centers[:, None] - start) / extent - 1).unbind(dim=2)  # (M, 200) each
    return torch.stack([x[:, None, :].expand(-1, SIDE, -1), y[:, :, None].expand(-1, -1, SIDE)], dim=-1)
