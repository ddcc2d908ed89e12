"""Masks from the saliency of pooled seeds: the paper's proposals and, with other settings, FreeSOLO's free masks."""

from dataclasses import asdict
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass
from torch import Tensor

from stage1_proposals.common.mask_nms import greedy_mask_nms, matrix_nms
from stage1_proposals.common.settings import SETTINGS
from stage1_proposals.generators.base import Batch, Proposals
from stage1_proposals.generators.connected import part_with
from stage1_proposals.generators.mask_rle import batch_mask_changes, encode_changes, occupied
from stage1_proposals.generators.saliency_maps import Similarity, mask_scores, normalise, saliency_maps
from stage1_proposals.generators.seeds import Pooling, pool_seeds, seed_grids

Fraction = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True, config=SETTINGS)
class SaliencyGenerator:
    """The paper's saliency masks: Z = NMS(Thres(Norm(Y))) (Sec. 3.2, Eq. 3-4).

    Attributes:
        similarity: `cosine` (seeds and X L2-normalised) or `dot` (Eq. 3 to the letter).
        seed_scales: seed grids as fractions of the feature map's size.
        seed_grid: one fixed grid (rows, columns) instead.
        pooling: of the features to a seed grid: `average` over the cells in it, or `bilinear` interpolation.
        threshold: of the normalised saliency.
        component: `all` of a mask, or only the connected part that holds its `seed`, where the saliency is highest.
        nms: `greedy` (a mask IoU above `nms_iou` suppresses) or `matrix` (gaussian decay of strength `nms_sigma`).
        min_cells: masks of at most this many feature cells are null masks, which are dropped before NMS.
        max_proposals: most proposals per image that NMS keeps; the filters below may leave fewer.
        min_score: proposals with lower scores, after any decay, are dropped.
        max_width: masks that have pixels in a larger fraction of the image's columns are dropped.
        top_margin: masks whose rows lie on average above this fraction of the image's height are dropped.
    """

    NAME: ClassVar[str] = "saliency"

    similarity: Similarity = "cosine"
    seed_scales: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)] = (1.0, 0.5, 0.25)
    seed_grid: tuple[PositiveInt, PositiveInt] | None = None
    pooling: Pooling = "average"
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5
    component: Literal["all", "seed"] = "all"
    nms: Literal["greedy", "matrix"] = "greedy"
    nms_iou: Fraction = 0.5
    nms_sigma: PositiveFloat = 2.0
    max_proposals: PositiveInt = 20
    min_cells: NonNegativeInt = 1
    min_score: Fraction = 0.0
    max_width: Fraction = 1.0
    top_margin: Fraction = 0.0

    def parameters(self) -> dict[str, Any]:
        """Name and settings; those that came after version 0.2 only if they change masks, so that sets stay valid."""
        settings = asdict(self)
        for name in ("pooling", "component"):
            if settings[name] == getattr(type(self), name):
                del settings[name]
        return {"name": self.NAME, **settings}

    @torch.inference_mode()
    def __call__(self, batch: Batch) -> list[Proposals]:
        """Proposals of each image, by descending score. Shapes: B images, L seeds, K masks kept."""
        features = batch.features  # X (B, D, h, w)

        # Sec. 3.2: the feature map, average-pooled to grids, gives the seeds S (B, L, D).
        seeds, centres = pool_seeds(features, self._grids(features), self.pooling)
        # Eq. 3: one saliency map per seed, Y = conv(S, X) (B, L, h, w).
        saliency = saliency_maps(features, seeds, self.similarity)
        # Eq. 4, Norm: each map to [0, 1].
        saliency = normalise(saliency)
        # Eq. 4, Thres: one mask per map, scored by the mean saliency inside it.
        masks = saliency > self.threshold
        if self.component == "seed":
            parts = part_with(masks, saliency.flatten(2).argmax(2))
            saliency, masks = saliency * (parts | ~masks), parts
        scores = mask_scores(saliency, masks)
        # Eq. 4, NMS: duplicates and null masks go, the K best stay.
        valid = masks.sum((2, 3)) > self.min_cells
        kept, is_kept, scores = self._suppress(masks, scores, valid)
        image = torch.arange(len(saliency), device=saliency.device)[:, None]
        saliency, seeds = saliency[image, kept], seeds[image, kept]

        # Full-size masks: saliency upsampled, then thresholded; they exist as run lengths only.
        sizes = [info.size for info in batch.images]
        changes = batch_mask_changes(saliency, sizes, self.threshold)
        # Besides run lengths, this is all that leaves the device, once per batch.
        if self.similarity == "cosine":
            seeds = F.normalize(seeds, dim=2)
        on_cpu = [tensor.cpu().numpy() for tensor in (is_kept, scores, centres[kept], seeds.half())]
        return [self._proposals(*parts) for parts in zip(sizes, changes, *on_cpu, strict=True)]

    def _grids(self, features: Tensor) -> list[tuple[int, int]]:
        """The seed grids (rows, columns)."""
        rows, columns = features.shape[2:]
        return [self.seed_grid] if self.seed_grid else seed_grids(rows, columns, self.seed_scales)

    def _suppress(self, masks: Tensor, scores: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mask NMS.

        Returns:
            Indices of the masks kept, by descending score, int64 (B, K); bool (B, K), False where they are padding;
            and their scores (B, K), after any decay.
        """
        if self.nms == "greedy":
            kept, is_kept = greedy_mask_nms(masks, scores, valid, self.nms_iou, self.max_proposals)
            return kept, is_kept, scores.gather(1, kept)
        decayed = matrix_nms(masks, scores, valid, self.nms_sigma)
        decayed, order = torch.sort(decayed, dim=1, descending=True, stable=True)
        kept = order[:, : self.max_proposals]
        return kept, valid.gather(1, kept), decayed[:, : self.max_proposals]

    def _proposals(
        self,
        size: tuple[int, int],
        changes: list[NDArray[np.int64]],
        is_kept: NDArray[np.bool_],
        scores: NDArray[np.float32],
        seeds: NDArray[np.float32],
        features: NDArray[np.float16],
    ) -> Proposals:
        """One image's proposals, without padding, masks that have no pixel at full size, and filtered masks."""
        keep = is_kept & (scores >= self.min_score) & np.array([len(change) > 0 for change in changes], bool)
        if self.top_margin > 0 or self.max_width < 1:
            keep &= [bool(kept) and self._passes(change, size) for kept, change in zip(keep, changes, strict=True)]
        return Proposals(encode_changes(changes, size), scores, seeds, features).take(keep.nonzero()[0])

    def _passes(self, change: NDArray[np.int64], size: tuple[int, int]) -> bool:
        """Whether a mask passes the position filters; a row or column counts once, however many pixels it has."""
        rows, columns = occupied(change, size)
        centre = (rows.nonzero()[0].mean() + 0.5) / size[0]
        return bool(columns.mean() <= self.max_width and centre >= self.top_margin)
