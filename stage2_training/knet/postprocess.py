"""From the last stage's logits to instances at the size of the image."""

import torch
import torch.nn.functional as F
from mmengine.structures import InstanceData
from torch import Tensor

from stage2_training.knet.losses import upsample_masks

MASKS_AT_ONCE = 16  # full-size float masks held at a time; the boolean results are a quarter of their size


def predict_instances(
    cls_logits: Tensor,
    mask_logits: Tensor,
    padded_size: tuple[int, int],
    image_size: tuple[int, int],
    output_size: tuple[int, int],
    max_per_img: int = 100,
    mask_threshold: float = 0.5,
) -> InstanceData:
    """One image's best (kernel, class) pairs with their masks; sizes are (height, width).

    Args:
        cls_logits: (N, K).
        mask_logits: (N, h, w), at stride 8 of the padded input.
        padded_size: of the network's input.
        image_size: of the image in it, top left.
        output_size: of the masks to return.
        max_per_img: number of pairs kept.
        mask_threshold: on mask probabilities.

    Returns:
        `scores` float32 (R,) falling, `labels` int64 (R,), `masks` bool (R, *output_size) and `bboxes`
        float32 (R, 4), tight around the masks; R = min(max_per_img, N * K).
    """
    scores, pairs = _top_scores(cls_logits, max_per_img)
    num_classes = cls_logits.shape[1]
    # A kernel may be kept with several classes: its mask is upsampled once.
    kernels, rows = torch.unique(pairs // num_classes, return_inverse=True)
    resized = [
        resize_masks(logits, padded_size, image_size, output_size) > mask_threshold
        for logits in mask_logits[kernels].split(MASKS_AT_ONCE)
    ]
    masks = torch.cat(resized)[rows]
    return InstanceData(scores=scores, labels=pairs % num_classes, masks=masks, bboxes=mask_boxes(masks))


def resize_masks(
    mask_logits: Tensor, padded_size: tuple[int, int], image_size: tuple[int, int], output_size: tuple[int, int]
) -> Tensor:
    """Mask logits (R, h, w) at stride 8 -> probabilities float32 (R, *output_size)."""
    probs = upsample_masks(mask_logits[None].float()).sigmoid()
    probs = F.interpolate(probs, size=padded_size, mode="bilinear", align_corners=False)
    probs = probs[..., : image_size[0], : image_size[1]]
    return F.interpolate(probs, size=output_size, mode="bilinear", align_corners=False)[0]


def mask_boxes(masks: Tensor) -> Tensor:
    """Tight boxes (x1, y1, x2, y2) of bool masks (R, H, W): float32 (R, 4), zeros for an empty mask.

    x2 and y2 are the last pixel's far edge: a mask of one pixel has a box of 1 x 1.
    """
    x1, x2 = _extent(masks.any(dim=1))
    y1, y2 = _extent(masks.any(dim=2))
    return torch.stack([x1, y1, x2, y2], dim=1).float()


def _extent(used: Tensor) -> tuple[Tensor, Tensor]:
    """bool (R, S) -> index of the first True and one past the last, int64 (R,); 0 and 0 without any."""
    used = used.int()
    first = used.argmax(dim=1)
    past_last = used.shape[1] - used.flip(1).argmax(dim=1)
    return first, past_last * used.amax(dim=1)


def _top_scores(cls_logits: Tensor, max_per_img: int) -> tuple[Tensor, Tensor]:
    """Logits (N, K) -> the highest scores, falling, and their places in the flattened (N * K)."""
    scores = cls_logits.float().sigmoid().flatten()
    return scores.topk(min(max_per_img, scores.numel()))
