"""Proposal generators: how one image's feature map becomes proposals.

A generator is a frozen dataclass of its parameters with one method; `GENERATORS` names them.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from stage1_proposals.errors import UserError
from stage1_proposals.mask_nms import greedy_mask_nms, matrix_nms
from stage1_proposals.proposals import Proposals
from stage1_proposals.saliency import (
    SIMILARITIES,
    mask_scores,
    normalise,
    pool_seeds,
    saliency_maps,
    seed_grids,
    upsample_masks,
)


class ProposalGenerator(Protocol):
    """What the job asks of a generator."""

    def parameters(self) -> dict[str, Any]:
        """Name and parameters, JSON-ready; two runs with equal ones make equal proposals."""

    def __call__(self, features: Tensor, size: tuple[int, int]) -> Proposals:
        """Proposals of one image from its feature map (D, h, w), masks at `size` = (height, width) pixels."""


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
        max_box_width: widest box kept, as a fraction of the image width.
        top_margin: masks whose vertical centre lies above this fraction of the height are dropped.
    """

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
    max_box_width: float = 1.0
    top_margin: float = 0.0

    def __post_init__(self) -> None:
        if self.similarity not in SIMILARITIES:
            raise UserError(f"similarity {self.similarity!r}: use {' or '.join(SIMILARITIES)}")
        if self.nms not in ("greedy", "matrix"):
            raise UserError(f"nms {self.nms!r}: use greedy or matrix")
        for name in ("threshold", "nms_iou", "min_score", "max_box_width", "top_margin"):
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
        return {"name": "saliency", **asdict(self)}

    @torch.inference_mode()
    def __call__(self, features: Tensor, size: tuple[int, int]) -> Proposals:
        _, rows, columns = features.shape
        grids = [self.seed_grid] if self.seed_grid else seed_grids(rows, columns, self.seed_scales)
        seeds, centres = pool_seeds(features, grids)
        if self.similarity == "cosine":
            features, seeds = F.normalize(features, dim=0), F.normalize(seeds, dim=1)
        maps = normalise(saliency_maps(features, seeds))
        masks = maps > self.threshold
        scores = mask_scores(maps, masks)
        valid = (masks.sum((1, 2)) > self.min_cells).nonzero()[:, 0]
        kept, scores = self._suppress(masks[valid], scores[valid])
        kept = valid[kept]
        full = upsample_masks(maps[kept], size, self.threshold)
        return self._filter(Proposals(full, scores, centres[kept], seeds[kept]), size)

    def _suppress(self, masks: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Indices kept, best first, and their scores after any decay."""
        if self.nms == "greedy":
            kept = greedy_mask_nms(masks, scores, self.nms_iou, self.max_proposals)
            return kept, scores[kept]
        decayed, order = torch.sort(matrix_nms(masks, scores, self.nms_sigma), descending=True, stable=True)
        return order[: self.max_proposals], decayed[: self.max_proposals]

    def _filter(self, proposals: Proposals, size: tuple[int, int]) -> Proposals:
        """Drop masks that are empty at full size, and those the filters name."""
        height, width = size
        masks = proposals.masks
        keep = masks.flatten(1).any(1) & (proposals.scores >= self.min_score)
        if self.max_box_width < 1:
            columns = masks.any(1)
            first, beyond = columns.to(torch.uint8).argmax(1), width - columns.flip(1).to(torch.uint8).argmax(1)
            keep &= (beyond - first) / width <= self.max_box_width
        if self.top_margin > 0:
            rows = masks.sum(2)
            middles = torch.arange(height, device=rows.device) + 0.5
            keep &= (rows * middles).sum(1) / rows.sum(1).clamp_min(1) / height >= self.top_margin
        return proposals[keep]


GENERATORS: dict[str, type] = {"saliency": SaliencyGenerator}


def build_generator(settings: Mapping[str, Any]) -> ProposalGenerator:
    """A generator from its `name` and parameters.

    Raises:
        UserError: unknown name, unknown parameter, or a value out of range.
    """
    parameters = {key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()}
    name = parameters.pop("name", "saliency")
    if name not in GENERATORS:
        raise UserError(f"no generator {name!r}; there are {', '.join(GENERATORS)}")
    known = {field.name for field in fields(GENERATORS[name])}
    unknown = sorted(set(parameters) - known)
    if unknown:
        raise UserError(f"generator {name} has no setting {', '.join(unknown)}; it has {', '.join(sorted(known))}")
    try:
        return GENERATORS[name](**parameters)
    except TypeError as error:
        raise UserError(f"generator {name}: a setting has the wrong type ({error})") from error
