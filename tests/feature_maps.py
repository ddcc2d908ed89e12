"""Feature maps, and what a generator proposes for one."""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from torch import Tensor

from stage1_proposals.generators.base import Batch, ImageInfo, ProposalGenerator, Proposals

SIZE = (96, 128)


def propose(generator: ProposalGenerator, features: Tensor, size: tuple[int, int] = SIZE) -> Proposals:
    """Proposals of one image from its features (D, h, w)."""
    (proposals,) = generator(Batch(features[None], [ImageInfo(1, "a.jpg", size)]))
    return proposals


def masks_of(proposals: Proposals, size: tuple[int, int] = SIZE) -> NDArray[np.bool_]:
    objects = [{"size": list(size), "counts": counts} for counts in proposals.rle]
    return coco_mask.decode(objects).transpose(2, 0, 1).astype(bool)


def smooth_features(seed: int = 0, height: int = 6, width: int = 8) -> Tensor:
    """Features that vary slowly over the image, as a backbone's do: (16, height, width)."""
    coarse = torch.randn(1, 16, 3, 3, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(coarse, (height, width), mode="bilinear")[0]
