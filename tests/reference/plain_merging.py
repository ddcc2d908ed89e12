"""Hierarchical merging as it reads: a loop over all pairs of neighbouring regions, sets of cells, pixels of masks."""

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


def plain_regions(
    vectors: NDArray[np.float64], columns: int, min_cells: int, max_area: float, nms_iou: float, max_proposals: int
) -> list[tuple[float, frozenset[int]]]:
    """Score and cells of each region that is proposed, the best first."""
    made = {frozenset([cell]): 1.0 for cell in range(len(vectors))}
    candidates = []
    for likeness, a, b in plain_merges(vectors, columns):
        for region in (a, b):
            fraction = len(region) / len(vectors)
            if len(region) >= min_cells and fraction <= max_area and made[region] > likeness:
                candidates.append(((made[region] - likeness) * np.sqrt(fraction), region))
        made[a | b] = likeness
    kept: list[tuple[float, frozenset[int]]] = []
    for score, region in sorted(candidates, key=lambda candidate: -candidate[0]):
        if len(kept) == max_proposals:
            break
        if all(len(region & other) <= nms_iou * len(region | other) for _, other in kept):
            kept.append((score, region))
    return kept
