"""Hierarchical merging as it reads: a loop over all pairs of neighbouring regions, sets of cells, pixels of masks."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray


def are_neighbours(a: frozenset[int], b: frozenset[int], columns: int) -> bool:
    """Whether a cell of one is left, right, above or below a cell of the other."""
    return any(abs(i // columns - j // columns) + abs(i % columns - j % columns) == 1 for i in a for j in b)


def plain_merges(vectors: NDArray[np.float64], columns: int) -> list[tuple[float, frozenset[int], frozenset[int]]]:
    """Each merge in turn: how alike the two regions are, and the cells of both."""
    regions = [frozenset([cell]) for cell in range(len(vectors))]
    merges = []
    while len(regions) > 1:
        best, pair = -2.0, (0, 0)
        for i in range(len(regions)):
            for j in range(i + 1, len(regions)):
                if are_neighbours(regions[i], regions[j], columns):
                    a, b = vectors[list(regions[i])].sum(0), vectors[list(regions[j])].sum(0)
                    likeness = float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))
                    if likeness > best:
                        best, pair = likeness, (i, j)
        a, b = regions[pair[0]], regions[pair[1]]
        merges.append((best, a, b))
        regions = [region for region in regions if region not in (a, b)] + [a | b]
    return merges


def likeness_of_means(vectors: NDArray[np.float64], a: Iterable[int], b: Iterable[int]) -> float:
    """Cosine similarity of the means over two sets of cells; 1 if one has none."""
    one, other = vectors[sorted(a)].sum(0), vectors[sorted(b)].sum(0)
    norms = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(one @ other) / norms if norms else 1.0


def score_of(region: frozenset[int], vectors: NDArray[np.float64], columns: int, area_exponent: float) -> float:
    """How much a region differs from the cells beside it and from the image's border, for its size."""
    everything = range(len(vectors))
    ring = [cell for cell in everything if cell not in region and are_neighbours(frozenset([cell]), region, columns)]
    rows = len(vectors) // columns
    border = [c for c in everything if c // columns in (0, rows - 1) or c % columns in (0, columns - 1)]
    contrast = 1 - likeness_of_means(vectors, region, ring)
    difference = 1 - likeness_of_means(vectors, region, border)
    return min(max(contrast * difference, 0), 1) * (len(region) / len(vectors)) ** area_exponent


def plain_regions(
    vectors: NDArray[np.float64],
    columns: int,
    min_cells: int,
    max_area: float,
    area_exponent: float,
    nms_iou: float,
    max_proposals: int,
) -> list[tuple[float, frozenset[int]]]:
    """Score and cells of each region that is proposed, the best first."""
    regions = [frozenset([cell]) for cell in range(len(vectors))]
    regions += [a | b for _, a, b in plain_merges(vectors, columns)]
    candidates = []
    for region in regions:
        if len(region) >= min_cells and len(region) <= max_area * len(vectors):
            score = score_of(region, vectors, columns, area_exponent)
            if score > 1e-6:
                candidates.append((score, region))
    kept: list[tuple[float, frozenset[int]]] = []
    for score, region in sorted(candidates, key=lambda candidate: -candidate[0]):
        if len(kept) == max_proposals:
            break
        if all(len(region & other) <= nms_iou * len(region | other) for _, other in kept):
            kept.append((score, region))
    return kept
