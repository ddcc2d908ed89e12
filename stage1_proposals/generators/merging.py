"""Masks from hierarchical merging: regions of neighbouring cells that differ from their surroundings."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from itertools import repeat
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field, NonNegativeFloat, PositiveInt
from pydantic.dataclasses import dataclass
from torch import Tensor

from stage1_proposals.common.settings import SETTINGS
from stage1_proposals.generators.base import Batch, Proposals
from stage1_proposals.generators.guided_edges import Window, follow_image, grey_guide, windows_around
from stage1_proposals.generators.mask_rle import batch_mask_changes, encode_changes
from stage1_proposals.generators.merge_tree import MergeTree, build_merge_tree
from stage1_proposals.generators.seeds import cell_centres

INSIDE = 0.5  # soft masks exceed it inside
LEAST_MARGIN = 0.05  # by which a cell of a soft mask is inside or outside
MOST_VALUES = 1 << 24  # columns at full size times rows of the map, of all masks at once
LEAST_SCORE = 1e-6  # less is rounding: of cells that are all alike


@dataclass(frozen=True, config=SETTINGS)
class MergingGenerator:
    """Regions that neighbouring cells merge into, most alike first, ranked by how much they stand out.

    A region's score is the product of

    - its contrast, one less the likeness of its mean to the mean of the cells beside it,
    - one less its likeness to the background, which is the mean of the cells along the image's border,
    - the fraction of the image that it covers, to the power of `area_exponent`, since small regions contrast more
      easily.

    Means are of unit vectors, and likeness is cosine similarity. A region's seed is the whole region: the seed feature
    is its mean, L2-normalised, and the seed's centre the mean position of its cells.

    Attributes:
        min_cells: regions of fewer feature cells are no candidates.
        max_area: nor are those that cover a larger fraction of the image.
        area_exponent: how much size counts; less finds smaller objects first.
        nms_iou: a better region whose mask IoU is larger suppresses a region.
        max_proposals: most proposals per image.
        edges: of masks: as the `image` has them nearby, or where `cells` on both sides are equally like the region. A
            batch without pixels has the latter.
    """

    NAME: ClassVar[str] = "merging"

    min_cells: PositiveInt = 3
    max_area: Annotated[float, Field(gt=0, le=1)] = 0.5
    area_exponent: NonNegativeFloat = 1 / 3
    nms_iou: Annotated[float, Field(ge=0, le=1)] = 0.5
    max_proposals: PositiveInt = 20
    edges: Literal["image", "cells"] = "image"

    def parameters(self) -> dict[str, Any]:
        """Name and settings; `area_exponent`, which came later, only if it changes masks, so that sets stay valid."""
        settings = asdict(self)
        if self.area_exponent == type(self).area_exponent:
            del settings["area_exponent"]
        return {"name": self.NAME, **settings}

    @torch.inference_mode()
    def __call__(self, batch: Batch) -> list[Proposals]:
        """Proposals of each image, by descending score. Shapes: B images, N = h * w cells, K regions of an image."""
        rows, columns = batch.features.shape[2:]
        vectors = F.normalize(batch.features.flatten(2).transpose(1, 2), dim=2)  # (B, N, D)
        on_cpu = vectors.contiguous().cpu().numpy()
        centres = cell_centres(rows, columns, vectors.device)
        proposals = []
        guides: Iterable[Tensor | None] = repeat(None, len(vectors))
        if self.edges == "image" and batch.pixels is not None:
            guides = (grey_guide(pixels, (rows, columns)) for pixels in batch.pixels)
        for cells, cells_on_cpu, guide, image in zip(vectors, on_cpu, guides, batch.images, strict=True):
            tree = build_merge_tree(cells_on_cpu, columns)
            candidates, scores = self._candidates(tree, cells_on_cpu, columns)
            kept = suppress_nested(tree, candidates, scores, self.nms_iou, self.max_proposals)
            nodes = candidates[kept]
            inside = region_cells(tree, nodes)
            regions = torch.from_numpy(inside).to(cells)  # (K, N)
            seeds = F.normalize(regions @ cells, dim=1)  # S (K, D)
            soft = soft_masks(cells, regions, seeds, (rows, columns))
            windows = windows_around(inside.reshape(-1, rows, columns))
            changes = full_size_changes(soft, windows, guide, image.size)
            positions = regions @ centres / regions.sum(1, keepdim=True)
            found = Proposals(
                encode_changes(changes, image.size),
                scores[kept],
                positions.cpu().numpy(),
                seeds.half().cpu().numpy(),
            )
            # A region of a few cells may hold the centre of no pixel of a small image.
            proposals.append(found.take([row for row, change in enumerate(changes) if len(change)]))
        return proposals

    def _candidates(
        self, tree: MergeTree, vectors: NDArray[np.float32], columns: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The nodes that are candidates (M,), and their scores (M,), in [0, 1]."""
        fraction = tree.area / len(vectors)
        nodes = np.flatnonzero((tree.area >= self.min_cells) & (fraction <= self.max_area))
        means = tree.sums(vectors, nodes)
        contrast = 1 - cosine(means, tree.ring_sums(vectors, columns, nodes))
        border = np.ones((len(vectors) // columns, columns), bool)
        border[1:-1, 1:-1] = False
        difference = 1 - cosine(means, vectors[border.ravel()].sum(0, dtype=np.float64))
        scores = np.clip(contrast * difference, 0, 1) * fraction[nodes] ** self.area_exponent
        stands_out = scores > LEAST_SCORE
        return nodes[stands_out], scores[stands_out].astype(np.float32)


def cosine(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cosine similarity of vectors (..., D); 1 with a vector of zeros, which differs from nothing."""
    product = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    return np.divide((a * b).sum(-1), product, out=np.ones_like(product), where=product > 0)


def suppress_nested(
    tree: MergeTree, nodes: NDArray[np.int64], scores: NDArray[np.float32], iou_threshold: float, max_kept: int
) -> NDArray[np.int64]:
    """Greedy NMS of a tree's nodes, of which any two are nested or disjoint; of equal scores, the first node wins.

    Args:
        nodes: int64 (M,).
        scores: of each, (M,).
        iou_threshold: a node is dropped if its IoU with a kept one is larger.
        max_kept: stop after this many.

    Returns:
        Positions in `nodes` of those kept, by descending score.
    """
    left = np.argsort(-scores, kind="stable")
    first, end = tree.first[nodes], tree.end[nodes]
    kept: list[int] = []
    while left.size and len(kept) < max_kept:
        best = left[0]
        kept.append(best)
        intersection = np.maximum(np.minimum(end[left], end[best]) - np.maximum(first[left], first[best]), 0)
        union = (end - first)[left] + (end - first)[best] - intersection
        stays = intersection <= iou_threshold * union
        stays[0] = False
        left = left[stays]
    return np.array(kept, np.int64)


def full_size_changes(
    soft: Tensor, windows: Sequence[Window], guide: Tensor | None, size: tuple[int, int]
) -> list[NDArray[np.int64]]:
    """The changes of masks at full size, see `batch_mask_changes`; a few masks at a time, so that memory is bounded.

    Args:
        soft: maps (K, h, w).
        windows: of each, see `follow_image`.
        guide: that edges follow, see `grey_guide`; None: edges follow the cells.
        size: (height, width) of the image in pixels.
    """
    rows = soft.shape[1] if guide is None else len(guide)
    at_once = max(1, MOST_VALUES // (rows * size[1]))
    changes = []
    for first in range(0, len(soft), at_once):
        maps = soft[first : first + at_once]
        if guide is not None:
            maps = follow_image(maps, windows[first : first + at_once], guide)
        changes += batch_mask_changes(maps[None], [size], INSIDE)[0]
    return changes


def region_cells(tree: MergeTree, nodes: NDArray[np.int64]) -> NDArray[np.bool_]:
    """The cells of each node, bool (K, N)."""
    cells = np.zeros((len(nodes), len(tree.order)), bool)
    for row, node in enumerate(nodes.tolist()):
        cells[row, tree.cells(node)] = True
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
