"""From the last stage's logits to instances at the image's size."""

import torch
import torch.nn.functional as F
from mmengine.structures import InstanceData
from torch import Tensor

from stage1_proposals.common.mask_nms import decay_scores, mask_iou
from stage2_training.knet.losses import upsample_masks
from stage2_training.models.one_piece import largest_pieces

MASKS_AT_ONCE = 16  # full-size float masks in memory at a time; the boolean results take a quarter of that


def predict_instances(
    cls_logits: Tensor,
    mask_logits: Tensor,
    padded_size: tuple[int, int],
    image_size: tuple[int, int],
    output_size: tuple[int, int],
    max_per_img: int = 100,
    mask_threshold: float = 0.5,
    min_score: float = 0.0,
    rescore: bool = False,
    one_piece: bool = False,
) -> InstanceData:
    """The best (kernel, class) pairs of one image, with their masks. Sizes are (height, width).

    Args:
        cls_logits: (N, K).
        mask_logits: (N, h, w), of the padded input.
        padded_size: size of the network's input.
        image_size: size of the image in it, at its top left.
        output_size: size of the returned masks.
        max_per_img: maximum number of pairs.
        mask_threshold: on mask probabilities.
        min_score: pairs with a lower score are left out, which spares the time for their masks.
        rescore: scores are those of `rescored`, not of the classes alone.
        one_piece: masks keep their largest connected part alone.

    Returns:
        `scores` float32 (R,) in descending order, `labels` int64 (R,), `masks` bool (R, *output_size) and `bboxes`
        float32 (R, 4), tight around the masks; R = min(max_per_img, N * K) or, with `min_score`, fewer.
    """
    scores = cls_logits.float().sigmoid()
    if rescore:
        scores = rescored(scores[None], mask_logits[None], mask_threshold)[0]
    scores, pairs = scores.flatten().topk(min(max_per_img, scores.numel()))
    if min_score > 0:  # else a GPU need not wait for their number
        count = int((scores >= min_score).sum())
        scores, pairs = scores[:count], pairs[:count]
    num_classes = cls_logits.shape[1]
    # A kernel may be kept with several classes; its mask is upsampled only once.
    kernels, rows = torch.unique(pairs // num_classes, return_inverse=True)
    if not len(kernels):
        masks = mask_logits.new_zeros((0, *output_size), dtype=torch.bool)
        return InstanceData(scores=scores, labels=pairs, masks=masks, bboxes=scores.new_zeros((0, 4)))
    resized = [
        resize_masks(logits, padded_size, image_size, output_size) > mask_threshold
        for logits in mask_logits[kernels].split(MASKS_AT_ONCE)
    ]
    masks = torch.cat(resized)
    masks = (largest_pieces(masks) if one_piece else masks)[rows]
    return InstanceData(scores=scores, labels=pairs % num_classes, masks=masks, bboxes=mask_boxes(masks))


def rescored(scores: Tensor, mask_logits: Tensor, mask_threshold: float = 0.5) -> Tensor:
    """Scores that also say how certain a mask is, and whether a better one has found its object already.

    A score is multiplied with the mean probability inside its mask, as Mask2Former's is, then decays by the overlap
    with masks of higher score in its class. One query for one object is what matching teaches a model in many epochs;
    after few, several find the same object with nearly the same score.

    Args:
        scores: of classes, float32 (B, N, K), in [0, 1].
        mask_logits: (B, N, h, w).
        mask_threshold: on mask probabilities.

    Returns:
        (B, N, K).
    """
    probs = mask_logits.flatten(2).float().sigmoid()
    inside = (probs > mask_threshold).float()
    certainty = (probs * inside).sum(2) / inside.sum(2).clamp_min(1)
    by_class = (scores * certainty[:, :, None]).transpose(1, 2)
    return decay_scores(by_class, mask_iou(inside, inside)[:, None]).transpose(1, 2)


def resize_masks(
    mask_logits: Tensor, padded_size: tuple[int, int], image_size: tuple[int, int], output_size: tuple[int, int]
) -> Tensor:
    """Mask logits (R, h, w) -> probabilities float32 (R, *output_size)."""
    probs = upsample_masks(mask_logits[None].float()).sigmoid()
    probs = F.interpolate(probs, size=padded_size, mode="bilinear", align_corners=False)
    probs = probs[..., : image_size[0], : image_size[1]]
    return F.interpolate(probs, size=output_size, mode="bilinear", align_corners=False)[0]


def mask_boxes(masks: Tensor) -> Tensor:
    """Tight boxes (x1, y1, x2, y2) of bool masks (R, H, W): float32 (R, 4), zeros for an empty mask.

    x2 and y2 are exclusive: a mask of one pixel has a box of 1 x 1.
    """
    pixels = masks.view(torch.uint8)  # whose maximum takes a fifth of the time that `any` of booleans takes
    x1, x2 = _extent(pixels.amax(dim=1))
    y1, y2 = _extent(pixels.amax(dim=2))
    return torch.stack([x1, y1, x2, y2], dim=1).float()


def _extent(occupied: Tensor) -> tuple[Tensor, Tensor]:
    """0 or 1 (R, S) -> index of the first 1 and one past the last 1, int64 (R,); 0 and 0 if there is none."""
    occupied = occupied.int()
    first = occupied.argmax(dim=1)
    past_last = occupied.shape[1] - occupied.flip(1).argmax(dim=1)
    return first, past_last * occupied.amax(dim=1)
