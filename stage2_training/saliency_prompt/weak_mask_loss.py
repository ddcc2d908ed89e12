"""Mask losses for masks that are only roughly right: projections on both axes, and the colours of the image (FreeSOLO).

Inside and outline of a pseudo mask are noisy, its extent is less so. So a predicted mask is compared with it row by row
and column by column, and its outline follows the image: neighbouring pixels of the same colour belong together.
"""

from typing import Any

import torch
import torch.nn.functional as F
from mmdet.models.data_preprocessors import BoxInstDataPreprocessor
from mmdet.models.losses import DiceLoss
from mmdet.models.utils import unfold_wo_center
from mmdet.registry import MODELS
from mmengine.logging import MessageHub
from skimage.color import rgb2lab
from torch import Tensor, nn

MASK_STRIDE = 4
COLORS = BoxInstDataPreprocessor(pairwise_size=3, pairwise_dilation=2)  # which neighbours of a pixel are compared
SIMILAR = 0.3  # from this similarity on, two colours are the same

_dice = DiceLoss(activate=False, reduction="none", eps=5e-6)  # added to either half of the denominator


@MODELS.register_module()
class WeakMaskLoss(nn.Module):
    """FreeSOLO's mask loss: maximum and mean projections, and colour affinity. In float32 under autocast, too.

    Args:
        max_weight, mean_weight: weights of the maximum and of the mean projections.
        affinity_weight: weight of the colour affinity.
        warm_up_steps: over which the affinity's weight rises to its full value; a tenth of the run at most. Without a
            runner there is no warm-up.
    """

    def __init__(
        self,
        max_weight: float = 1.0,
        mean_weight: float = 0.1,
        affinity_weight: float = 1.0,
        warm_up_steps: int = 1000,
    ) -> None:
        super().__init__()
        self.max_weight, self.mean_weight, self.affinity_weight = max_weight, mean_weight, affinity_weight
        self.warm_up_steps = warm_up_steps

    def forward(self, pred: Tensor, target: Tensor, **kwargs: Any) -> Tensor:
        """The loss of each of P masks, (P,).

        Args:
            pred: mask logits (P, h, w).
            target: (P, 1 + 8, h, w), 0 or 1: the pseudo mask, and for each of a pixel's neighbours whether it is in the
                image and has the same colour (`similar_neighbors`).
            kwargs: MMDetection's, ignored.
        """
        logits, mask, similar = pred.float(), target[:, 0].float(), target[:, 1:]
        probs = logits.sigmoid()
        projections = self.max_weight * max_projection_loss(probs, mask)
        projections = projections + self.mean_weight * mean_projection_loss(probs, mask)
        region = mask.amax(1, keepdim=True) * mask.amax(2, keepdim=True)  # its box, without gaps between its parts
        affinity = color_affinity_loss(logits, region, similar)
        return projections + self.affinity_weight * self._warm_up() * affinity

    def _warm_up(self) -> float:
        hub = MessageHub.get_current_instance()
        if (steps := hub.get_info("max_iters")) is None:
            return 1.0
        return min(1.0, (hub.get_info("iter", 0) + 1) / max(1, min(self.warm_up_steps, steps // 10)))


def max_projection_loss(probs: Tensor, masks: Tensor) -> Tensor:
    """Dice loss of the maxima of rows, plus that of columns: (P, h, w) each -> (P,)."""
    return _dice(probs.amax(1), masks.amax(1)) + _dice(probs.amax(2), masks.amax(2))


def mean_projection_loss(probs: Tensor, masks: Tensor) -> Tensor:
    """Dice loss of the means of rows, plus that of columns: (P, h, w) each -> (P,)."""
    return _dice(probs.mean(1), masks.mean(1)) + _dice(probs.mean(2), masks.mean(2))


def color_affinity_loss(logits: Tensor, region: Tensor, similar: Tensor) -> Tensor:
    """Mean over pairs of neighbours of the same colour of `-log` of the probability that both have the same label.

    Args:
        logits: of masks, (P, h, w).
        region: where the first of two neighbours counts, 0 or 1, (P, h, w).
        similar: (P, 8, h, w), as `similar_neighbors`.

    Returns:
        (P,); 0 where no pair counts.
    """
    inside, outside = (with_neighbors(F.logsigmoid(sign * logits)) for sign in (1, -1))
    weights = region[:, None] * similar
    losses = -torch.logaddexp(inside, outside) * weights
    return losses.sum((1, 2, 3)) / weights.sum((1, 2, 3)).clamp(min=1)


def with_neighbors(log_probs: Tensor) -> Tensor:
    """The log-probability that a pixel and its neighbour both have a label, (P, h, w) -> (P, 8, h, w)."""
    neighbors = unfold_wo_center(log_probs[:, None], COLORS.pairwise_size, COLORS.pairwise_dilation)
    return log_probs[:, None] + neighbors[:, 0]


def similar_neighbors(image: Tensor, size: tuple[int, int]) -> Tensor:
    """For each cell of an image at stride 4, which of its 8 neighbours are in the image and have the same colour.

    Neighbours are two cells away, straight or diagonally. Colours are compared in CIE Lab.

    Args:
        image: float (3, H, W), RGB from 0 to 255, padded.
        size: (height, width) without padding.

    Returns:
        bool (8, H / 4, W / 4).
    """
    pixels = F.avg_pool2d(image.float(), MASK_STRIDE).clamp(0, 255).byte().permute(1, 2, 0)
    lab = torch.from_numpy(rgb2lab(pixels.cpu().numpy())).to(image.device, torch.float32).permute(2, 0, 1)
    rows, columns = (
        torch.arange(cells, device=image.device) * MASK_STRIDE + MASK_STRIDE // 2 < pixels_of_side
        for cells, pixels_of_side in zip(pixels.shape[:2], size, strict=True)
    )
    in_image = (rows[:, None] & columns).float()
    similarity: Tensor = COLORS.get_images_color_similarity(lab[None], in_image)
    return similarity[0] >= SIMILAR
