"""Connected parts of masks on the feature map."""

import numpy as np
import torch
from numba import njit
from torch import Tensor


def part_with(masks: Tensor, cells: Tensor) -> Tensor:
    """The connected part of each mask that holds a given cell; cells are connected left, right, above and below.

    Computed on the CPU: there, filling a part costs one visit of its cells.

    Args:
        masks: bool (..., h, w).
        cells: the cell of each mask, row by row, int64 (...).

    Returns:
        bool (..., h, w); empty where the cell is outside the mask.
    """
    flat = masks.flatten(0, -3)
    parts = _fill(flat.cpu().numpy(), cells.flatten().cpu().numpy())
    return torch.from_numpy(parts).to(masks.device).view_as(masks)


@njit(cache=True)
def _fill(masks, cells):
    count, rows, columns = masks.shape
    parts = np.zeros(masks.shape, np.bool_)
    stack = np.empty(rows * columns, np.int64)
    for index in range(count):
        mask, part = masks[index], parts[index]
        row, column = cells[index] // columns, cells[index] % columns
        if not mask[row, column]:
            continue
        part[row, column] = True
        stack[0] = cells[index]
        height = 1
        while height:
            height -= 1
            row, column = stack[height] // columns, stack[height] % columns
            for y, x in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
                if 0 <= y < rows and 0 <= x < columns and mask[y, x] and not part[y, x]:
                    part[y, x] = True
                    stack[height] = y * columns + x
                    height += 1
    return parts
