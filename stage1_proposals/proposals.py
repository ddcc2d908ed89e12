"""Proposals: the struct of arrays that every generator returns for one image."""

from dataclasses import dataclass

import numpy as np
from pycocotools import mask as coco_mask
from torch import Tensor

from stage1_proposals.shards import ImageRecord


@dataclass(frozen=True)
class Proposals:
    """L proposals of one image, in the order they are stored.

    Attributes:
        masks: bool (L, height, width), full image size.
        scores: float32 (L,), in [0, 1].
        seeds: float32 (L, 2), seed centre (y, x) in [0, 1] of height and width.
        features: float32 (L, D), the seed feature S_l as the saliency used it.
    """

    masks: Tensor
    scores: Tensor
    seeds: Tensor
    features: Tensor

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, index: Tensor) -> "Proposals":
        return Proposals(self.masks[index], self.scores[index], self.seeds[index], self.features[index])


def to_record(proposals: Proposals, image_id: int, file_name: str, size: tuple[int, int]) -> ImageRecord:
    """Encode proposals as a shard's row: masks as COCO RLE, with tight boxes and areas.

    Args:
        size: (height, width) of the image in pixels.
    """
    masks = proposals.masks.cpu().numpy().view(np.uint8)
    rles = coco_mask.encode(np.asfortranarray(masks.transpose(1, 2, 0))) if len(proposals) else []
    corner_and_size = np.asarray(coco_mask.toBbox(rles), np.float32).reshape(-1, 4)
    return ImageRecord(
        image_id=image_id,
        file_name=file_name,
        height=size[0],
        width=size[1],
        bbox=np.concatenate([corner_and_size[:, :2], corner_and_size[:, :2] + corner_and_size[:, 2:]], axis=1),
        score=proposals.scores.float().cpu().numpy(),
        area=np.asarray(coco_mask.area(rles), np.int64).reshape(-1),
        seed=proposals.seeds.float().cpu().numpy(),
        feature=proposals.features.cpu().numpy().astype(np.float16),
        rle=[rle["counts"] for rle in rles],
    )
