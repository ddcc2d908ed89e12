"""Masks from the saliency of pooled seeds: the paper's generator and, with other settings, FreeSOLO's free masks."""

from collections import defaultdict
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from stage1_proposals.common.errors import UserError
from stage1_proposals.generators.base import Batch, Proposals
from stage1_proposals.generators.mask_nms import greedy_mask_nms, matrix_nms
from stage1_proposals.generators.mask_rle import encode_changes, mask_changes, occupied
from stage1_proposals.generators.saliency_maps import (
    SIMILARITIES,
    mask_scores,
    normalise,
    pool_seeds,
    saliency_maps,
    seed_grids,
)


@dataclass(frozen=True)
class SaliencyGenerator:
    """The paper's saliency masks: Z = NMS(Thres(Norm(Y))) (Sec. 3.2, Eq. 3-4).

    Attributes:
        similarity: `cosine` (seeds and X L2-normalised) or `dot` (Eq. 3 to the letter).
        seed_scales: seed grids as fractions of the feature map's size.
        seed_grid: one fixed grid (rows, columns) instead.
        threshold: of the normalised saliency.
        nms: `greedy` (mask IoU above `nms_iou` suppresses) or `matrix` (gaussian decay, `nms_sigma`).
        max_proposals: most proposals per image.
        min_cells: a mask must have more feature cells than this.
        min_score: a proposal's score must reach this.
        max_width: most of the image's columns that a mask may have pixels in, as a fraction.
        top_margin: masks whose rows lie on average above this fraction of the height are dropped.
    """

    NAME: ClassVar[str] = "saliency"

    similarity: str = "cosine"
    seed_scales: tuple[float, ...] = (1.0, 0.5, 0.25)
    seed_grid: tuple[int, int] | None = None
    threshold: float = 0.5
    nms: str = "greedy"
    nms_iou: float = 0.5
    nms_sigma: float = 2.0
    max_proposals: int = 20
    min_cells: int = 1
    min_score: float = 0.0
    max_width: float = 1.0
    top_margin: float = 0.0

    def __post_init__(self) -> None:
        if self.similarity not in SIMILARITIES:
            raise UserError(f"similarity {self.similarity!r}: use {' or '.join(SIMILARITIES)}")
        if self.nms not in ("greedy", "matrix"):
            raise UserError(f"nms {self.nms!r}: use greedy or matrix")
        for name in ("threshold", "nms_iou", "min_score", "max_width", "top_margin"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not 0 <= value <= 1:
                raise UserError(f"{name} {value!r}: must be a number in [0, 1]")
        if self.threshold in (0, 1):
            raise UserError(f"threshold {self.threshold}: must lie between 0 and 1")
        for name, least in (("max_proposals", 1), ("min_cells", 0)):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < least:
                raise UserError(f"{name} {getattr(self, name)!r}: must be a whole number, {least} or more")
        if self.nms_sigma <= 0 or not self.seed_scales or min(self.seed_scales) <= 0:
            raise UserError("nms_sigma and every seed scale must be positive")
        if self.seed_grid is not None:
            whole = len(self.seed_grid) == 2 and all(isinstance(number, int) for number in self.seed_grid)
            if not whole or min(self.seed_grid) < 1:
                raise UserError(f"seed_grid {self.seed_grid}: write [rows, columns], whole and positive")

    def parameters(self) -> dict[str, Any]:
        return {"name": self.NAME, **asdict(self)}

    @torch.inference_mode()
    def __call__(self, batch: Batch) -> list[Proposals]:
        features = batch.features
        rows, columns = features.shape[2:]
        grids = [self.seed_grid] if self.seed_grid else seed_grids(rows, columns, self.seed_scales)
        seeds, centres = pool_seeds(features, grids)
        maps = normalise(saliency_maps(features, seeds, self.similarity))
        masks = maps > self.threshold
        scores = mask_scores(maps, masks)
        valid = masks.sum((2, 3)) > self.min_cells
        kept, real, scores = self._suppress(masks, scores, valid)
        each = torch.arange(len(maps), device=maps.device)[:, None]
        changes = self._changes(maps[each, kept], batch)
        seeds = seeds[each, kept]
        if self.similarity == "cosine":
            seeds = F.normalize(seeds, dim=2)
        # All that leaves the device besides run lengths, once per batch.
        host = [part.cpu().numpy() for part in (real, scores, centres[kept], seeds.half())]
        return [
            self._proposals(image.size, change, *parts)
            for image, change, *parts in zip(batch.images, changes, *host, strict=True)
        ]

    def _suppress(self, masks: Tensor, scores: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Indices (B, K) of kept masks, best first, which of them are real, and their scores after any decay."""
        if self.nms == "greedy":
            kept, real = greedy_mask_nms(masks, scores, valid, self.nms_iou, self.max_proposals)
            return kept, real, scores.gather(1, kept)
        decayed = matrix_nms(masks, scores, valid, self.nms_sigma)
        decayed, order = torch.sort(decayed, dim=1, descending=True, stable=True)
        kept = order[:, : self.max_proposals]
        return kept, valid.gather(1, kept), decayed[:, : self.max_proposals]

    def _changes(self, maps: Tensor, batch: Batch) -> list[list[NDArray[np.int64]]]:
        """Run boundaries of each image's masks (B, K, h, w) at full size; images of one size go together."""
        groups = defaultdict(list)
        for index, image in enumerate(batch.images):
            groups[image.size].append(index)
        changes: dict[int, list[NDArray[np.int64]]] = {}
        for size, members in groups.items():
            owners, pixels = mask_changes(maps[members].flatten(0, 1), size, self.threshold)
            bounds = np.searchsorted(owners.cpu().numpy(), np.arange(1, len(members) * maps.shape[1]))
            masks = np.split(pixels.cpu().numpy(), bounds)
            for place, index in enumerate(members):
                changes[index] = masks[place * maps.shape[1] : (place + 1) * maps.shape[1]]
        return [changes[index] for index in range(len(batch.images))]

    def _proposals(
        self,
        size: tuple[int, int],
        changes: list[NDArray[np.int64]],
        real: NDArray[np.bool_],
        scores: NDArray[np.float32],
        seeds: NDArray[np.float32],
        features: NDArray[np.float16],
    ) -> Proposals:
        """One image's proposals without padding, without masks that vanish at full size, and after the filters."""
        keep = real & (scores >= self.min_score) & np.array([len(change) > 0 for change in changes], bool)
        if self.top_margin > 0 or self.max_width < 1:
            keep &= [bool(kept) and self._fits(change, size) for kept, change in zip(keep, changes, strict=True)]
        everything = Proposals(encode_changes(changes, size), scores, seeds, features)
        return everything.take(keep.nonzero()[0])

    def _fits(self, change: NDArray[np.int64], size: tuple[int, int]) -> bool:
        """Whether a mask passes the filters on place; each row and column it has pixels in counts once."""
        rows, columns = occupied(change, size)
        centre = (rows.nonzero()[0].mean() + 0.5) / size[0]
        return bool(columns.mean() <= self.max_width and centre >= self.top_margin)


@dataclass(frozen=True)
class FreeMaskGenerator(SaliencyGenerator):
    """FreeSOLO's free masks (its Sec. 3.1): matrix NMS, the cut, filters on decayed score, width and height."""

    NAME: ClassVar[str] = "freemask"

    nms: str = "matrix"
    min_score: float = 0.7
    max_width: float = 0.95
    top_margin: float = 0.2
