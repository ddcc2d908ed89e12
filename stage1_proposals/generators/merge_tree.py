"""Hierarchical merging of neighbouring cells: a tree whose nodes are connected regions of the feature map."""

import heapq
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray


@dataclass(frozen=True)
class MergeTree:
    """The regions that cells merge into, N cells and N - 1 merged regions, the root last.

    Nodes 0 ... N - 1 are the cells, row by row; node N + i is made by the i-th merge. The cells of a node are
    neighbours in `order`, so that a node is an interval and the overlap of two nodes is that of their intervals.

    Attributes:
        likeness: float64 (2N - 1,), cosine similarity of the two regions that a node is merged of; 1 for cells.
        first, end: int64 (2N - 1,), the node's interval in `order`, without `end`.
        order: int64 (N,), cells.
    """

    likeness: NDArray[np.float64]
    first: NDArray[np.int64]
    end: NDArray[np.int64]
    order: NDArray[np.int64]

    @property
    def area(self) -> NDArray[np.int64]:
        """Number of cells of each node."""
        return self.end - self.first

    def cells(self, node: int) -> NDArray[np.int64]:
        """The cells of a node."""
        return self.order[self.first[node] : self.end[node]]

    def sums(self, vectors: NDArray[np.float32], nodes: NDArray[np.int64]) -> NDArray[np.float64]:
        """The sum of the cells' vectors (N, D) over each of M nodes, (M, D)."""
        before = np.zeros((len(vectors) + 1, vectors.shape[1]))
        np.cumsum(vectors[self.order], axis=0, out=before[1:])
        return before[self.end[nodes]] - before[self.first[nodes]]

    def ring_sums(self, vectors: NDArray[np.float32], columns: int, nodes: NDArray[np.int64]) -> NDArray[np.float64]:
        """The sum of the cells' vectors (N, D) over the cells beside each of M nodes, (M, D)."""
        return _ring_sums(vectors, columns, self.order, self.first[nodes], self.end[nodes])


def build_merge_tree(vectors: NDArray[np.float32], columns: int) -> MergeTree:
    """Merge the pair of neighbouring regions that are most alike, repeatedly, until one is left.

    How alike two regions are is the cosine similarity of the sums of their cells' vectors. Cells are neighbours left,
    right, above and below. Of pairs that are equally alike, that with the older nodes merges first.

    Args:
        vectors: of the cells, row by row, unit length, (N, D), C-contiguous.
        columns: cells of a row.
    """
    return MergeTree(*_merge(vectors, columns))


@njit(cache=True, fastmath={"reassoc", "contract"})
def _dot(a, b):
    total = np.float32(0)
    for i in range(len(a)):
        total += a[i] * b[i]
    return total


@njit(cache=True)
def _region_of(node, parent):
    """The region that a node is part of now; the path to it is shortened."""
    while parent[node] >= 0:
        if parent[parent[node]] >= 0:
            parent[node] = parent[parent[node]]
        node = parent[node]
    return node


@njit(cache=True)
def _neighbours(cell, columns, cells):
    """Above, left, right and below: whether it is inside the image, and its number."""
    column = cell % columns
    return (
        (cell >= columns, cell - columns),
        (column > 0, cell - 1),
        (column < columns - 1, cell + 1),
        (cell + columns < cells, cell + columns),
    )


@njit(cache=True)
def _merge(vectors, columns):
    cells, dimensions = vectors.shape
    nodes = 2 * cells - 1
    sums = np.empty((nodes, dimensions), np.float32)
    sums[:cells] = vectors
    squares = np.ones(nodes)
    for node in range(cells):
        squares[node] = max(_dot(sums[node], sums[node]), 1e-12)
    likeness = np.ones(nodes)
    parent = np.full(nodes, -1, np.int64)
    region = np.full(nodes, -1, np.int64)  # as `parent`, with shortened paths
    left, right = np.empty(nodes, np.int64), np.empty(nodes, np.int64)
    area = np.ones(nodes, np.int64)

    # Linked lists of each region's neighbours; of two regions that merge, the lists are joined.
    head, tail = np.full(nodes, -1, np.int64), np.full(nodes, -1, np.int64)
    neighbour, following = np.empty(4 * cells, np.int64), np.full(4 * cells, -1, np.int64)
    links = 0
    heap = [(0.0, 0, 0) for _ in range(0)]
    for cell in range(cells):
        for is_inside, other in _neighbours(cell, columns, cells):
            if not is_inside:
                continue
            neighbour[links] = other
            if head[cell] < 0:
                head[cell] = links
            else:
                following[tail[cell]] = links
            tail[cell] = links
            links += 1
            if other > cell:
                alike = _dot(sums[cell], sums[other]) / np.sqrt(squares[cell] * squares[other])
                heap.append((-alike, cell, other))
    heapq.heapify(heap)

    seen = np.full(nodes, -1, np.int64)  # the region that last listed each region as its neighbour
    node = cells
    while node < nodes:
        cost, a, b = heapq.heappop(heap)
        if parent[a] >= 0 or parent[b] >= 0:
            continue  # one of the two has merged with another region meanwhile
        likeness[node] = -cost
        left[node], right[node] = a, b
        parent[a] = parent[b] = region[a] = region[b] = node
        area[node] = area[a] + area[b]
        sums[node] = sums[a] + sums[b]
        squares[node] = max(_dot(sums[node], sums[node]), 1e-12)
        following[tail[a]] = head[b]
        link, previous = head[a], -1
        while link >= 0:
            other = _region_of(neighbour[link], region)
            if other == node or seen[other] == node:  # inside, or listed before
                if previous < 0:
                    head[node] = following[link]
                else:
                    following[previous] = following[link]
            else:
                if previous < 0:
                    head[node] = link
                seen[other] = node
                neighbour[link] = other
                alike = _dot(sums[node], sums[other]) / np.sqrt(squares[node] * squares[other])
                heapq.heappush(heap, (-alike, other, node))
                previous = link
            link = following[link]
        tail[node] = previous
        node += 1

    first = np.zeros(nodes, np.int64)
    for node in range(nodes - 1, cells - 1, -1):
        first[left[node]] = first[node]
        first[right[node]] = first[node] + area[left[node]]
    order = np.empty(cells, np.int64)
    for cell in range(cells):
        order[first[cell]] = cell
    return likeness, first, first + area, order


@njit(cache=True)
def _ring_sums(vectors, columns, order, first, end):
    cells, dimensions = vectors.shape
    sums = np.zeros((len(first), dimensions))
    seen = np.full(cells, -1, np.int64)  # the node that last held a cell, or had it beside it
    for node in range(len(first)):
        for i in range(first[node], end[node]):
            seen[order[i]] = node
        for i in range(first[node], end[node]):
            cell = order[i]
            for is_inside, other in _neighbours(cell, columns, cells):
                if is_inside and seen[other] != node:
                    seen[other] = node
                    for dimension in range(dimensions):
                        sums[node, dimension] += vectors[other, dimension]
    return sums
