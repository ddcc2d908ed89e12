"""Masks from hierarchical merging: regions of neighbouring cells that stay apart from their surroundings for long."""

from dataclasses import asdict
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field, PositiveInt
from pydantic.dataclasses import dataclass
from torch import Tensor

from stage1_proposals.common.settings import SETTINGS
from stage1_proposals.generators.base import Batch, Proposals
from stage1_proposals.generators.mask_rle import batch_mask_changes, encode_changes
from stage1_proposals.generators.merge_tree import MergeTree, build_merge_tree
from stage1_proposals.generators.seeds import cell_centres

INSIDE = 0.5  # soft masks exceed it inside
LEAST_MARGIN = 0.05  # by which a cell of a soft mask is inside or outside
LEAST_PERSISTENCE = 1e-5  # less is rounding: of cells that are all alike


@dataclass(frozen=True, config=SETTINGS)
class MergingGenerator:
    """Regions that neighbouring cells merge into, most alike first, ranked by how long they last.

    A region's score is its persistence (the likeness at which it was made less that at which it was merged away) times
    the square root of the fraction of the image that it covers. Its seed is the whole region: the seed feature is the
    mean of its cells' unit vectors, L2-normalised, and the seed's centre the mean position of its cells.

    Attributes:
        min_cells: regions of fewer feature cells are no candidates.
        max_area: nor are those that cover a larger fraction of the image.
        nms_iou: a better region whose mask IoU is larger suppresses a region.
        max_proposals: most proposals per image.
    """

    NAME: ClassVar[str] = "merging"

    min_cells: PositiveInt = 3
    max_area: Annotated[float, Field(gt=0, le=1)] = 0.5
    nms_iou: Annotated[float, Field(ge=0, le=1)] = 0.5
    max_proposals: PositiveInt = 20

    def parameters(self) -> dict[str, Any]:
        """Name and settings."""
        return {"name": self.NAME, **asdict(self)}

    @torch.inference_mode()
    def __call__(self, batch: Batch) -> list[Proposals]:
        """Proposals of each image, by descending score. Shapes: B images, N = h * w cells, K regions of an image."""
        rows, columns = batch.features.shape[2:]
        vectors = F.normalize(batch.features.flatten(2).transpose(1, 2), dim=2)  # (B, N, D)
        on_cpu = vectors.contiguous().cpu().numpy()
        centres = cell_centres(rows, columns, vectors.device)
        proposals = []
        for cells, cells_on_cpu, image in zip(vectors, on_cpu, batch.images, strict=True):
            tree = build_merge_tree(cells_on_cpu, columns)
            scores = self._scores(tree)
            nodes = suppress_nested(tree, scores, self.nms_iou, self.max_proposals)
            regions = torch.from_numpy(region_cells(tree, nodes)).to(cells)  # (K, N)
            seeds = F.normalize(regions @ cells, dim=1)  # S (K, D)
            soft = soft_masks(cells, regions, seeds, (rows, columns))
            changes = batch_mask_changes(soft[None], [image.size], INSIDE)[0]
            positions = regions @ centres / regions.sum(1, keepdim=True)
            found = Proposals(
                encode_changes(changes, image.size),
                scores[nodes],
                positions.cpu().numpy(),
                seeds.half().cpu().numpy(),
            )
            # A region of a few cells may hold the centre of no pixel of a small image.
            proposals.append(found.take([row for row, change in enumerate(changes) if len(change)]))
        return proposals

    def _scores(self, tree: MergeTree) -> NDArray[np.float32]:
        """The score of each node, in [0, 1]; 0 for nodes that are no candidates."""
        fraction = tree.area / len(tree.order)
        is_candidate = (tree.area >= self.min_cells) & (fraction <= self.max_area)
        is_candidate &= tree.persistence > LEAST_PERSISTENCE
        scores = np.minimum(tree.persistence * np.sqrt(fraction), 1)
        return np.where(is_candidate, scores, 0).astype(np.float32)


def suppress_nested(
    tree: MergeTree, scores: NDArray[np.float32], iou_threshold: float, max_kept: int
) -> NDArray[np.int64]:
    """Greedy NMS of a tree's nodes, of which any two are nested or disjoint; of equal scores, the older node wins.

    Args:
        scores: (2N - 1,); nodes with score 0 take no part.
        iou_threshold: a node is dropped if its IoU with a kept one is larger.
        max_kept: stop after this many.

    Returns:
        The nodes kept, by descending score.
    """
    left = np.flatnonzero(scores > 0)
    left = left[np.argsort(-scores[left], kind="stable")]
    kept: list[int] = []
    while left.size and len(kept) < max_kept:
        best = left[0]
        kept.append(best)
        overlap = np.minimum(tree.end[left], tree.end[best]) - np.maximum(tree.first[left], tree.first[best])
        intersection = np.maximum(overlap, 0)
        union = tree.area[left] + tree.area[best] - intersection
        stays = intersection <= iou_threshold * union
        stays[0] = False
        left = left[stays]
    return np.array(kept, np.int64)


def region_cells(tree: MergeTree, nodes: NDArray[np.int64]) -> NDArray[np.bool_]:
    """The cells of each node, bool (K, N)."""
    cells = np.zeros((len(nodes), len(tree.order)), bool)
    for row, node in enumerate(nodes):
        cells[row, tree.order[tree.first[node] : tree.end[node]]] = True
    return cells


def soft_masks(cells: Tensor, regions: Tensor, seeds: Tensor, grid: tuple[int, int]) -> Tensor:
    """Maps that exceed `INSIDE` in a region and fall off with the likeness to it, so that they upsample well.

    A cell's value is linear in its likeness to the region's seed feature: 1 for the mean inside, 0 for the mean of the
    cells around the region, within [0, 1], and held on the right side of `INSIDE` by at least `LEAST_MARGIN`.

    Args:
        cells: unit vectors (N, D).
        regions: 0 or 1, float (K, N).
        seeds: (K, D), unit length.
        grid: (h, w), where N = h * w.

    Returns:
        (K, h, w).
    """
    likeness = seeds @ cells.T  # (K, N)
    padded = F.pad(regions.unflatten(1, grid), (1, 1, 1, 1))
    beside = padded[:, :-2, 1:-1] + padded[:, 2:, 1:-1] + padded[:, 1:-1, :-2] + padded[:, 1:-1, 2:]
    ring = (beside.flatten(1) > 0) * (1 - regions)
    high = (likeness * regions).sum(1) / regions.sum(1)
    low = (likeness * ring).sum(1) / ring.sum(1).clamp_min(1)
    values = (likeness - low[:, None]) / (high - low).clamp_min(1e-3)[:, None]
    inside, outside = values.clamp(INSIDE + LEAST_MARGIN, 1), values.clamp(0, INSIDE - LEAST_MARGIN)
    return torch.where(regions > 0, inside, outside).unflatten(1, grid)
