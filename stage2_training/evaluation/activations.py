"""Average activation of a detector's queries (Figure 6), and two numbers for how much it differs between queries."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from math import ceil, log, sqrt
from pathlib import Path
from textwrap import fill

import numpy as np
import torch
from matplotlib import colormaps, rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from stage1_proposals.common.errors import UserError

Maps = NDArray[np.floating]  # (N, S, S), one for each query

CELLS = 11  # per side; odd, so that the centre of the image is the centre of a cell
GAP = 8  # pixels between maps
TITLE = 44  # characters per line above a grid


@dataclass(frozen=True)
class Activations:
    """Where each query looks, on average.

    Attributes:
        maps: float64 (N, S, S), the mean mask of each query.
        images: number of images that they are averaged over.
    """

    maps: Maps
    images: int

    def numbers(self) -> dict[str, float]:
        """How different the queries are (`overlap`, `entropy`), with the numbers of `images` and `queries`."""
        return {
            "images": self.images,
            "queries": len(self.maps),
            "overlap": mean_overlap(self.maps),
            "entropy": location_entropy(self.maps),
        }


def mean_maps(masks: Iterable[Tensor]) -> Activations:
    """The mean over images of masks (B, N, S, S), given in batches.

    Raises:
        UserError: there are no images.
    """
    total, images = torch.zeros((), dtype=torch.float64), 0
    for batch in masks:
        total = total + batch.double().sum(dim=0).cpu()
        images += len(batch)
    if not images:
        raise UserError("no images to average over")
    return Activations((total / images).numpy(), images)


def min_max_normalise(maps: Maps) -> Maps:
    """Maps scaled so that each one's lowest value is 0 and its highest 1; a constant map becomes 0.

    A query with low probabilities everywhere then still shows where they are highest.
    """
    low, high = maps.min(axis=(1, 2), keepdims=True), maps.max(axis=(1, 2), keepdims=True)
    return np.divide(maps - low, high - low, out=np.zeros_like(maps), where=high > low)


def mean_overlap(maps: Maps) -> float:
    """Soft IoU, averaged over all pairs of maps: 1 if all are alike, 0 if no two overlap.

    For maps a and b, after `min_max_normalise`, it is the sum over pixels of min(a, b), divided by that of max(a, b),
    and 1 if both are 0 everywhere.
    """
    flat = min_max_normalise(maps).reshape(len(maps), -1)
    sums = [(np.minimum(a, b).sum(), np.maximum(a, b).sum()) for a, b in combinations(flat, 2)]
    return float(np.mean([shared / either if either else 1.0 for shared, either in sums])) if sums else 1.0


def location_entropy(maps: Maps) -> float:
    """How evenly queries are spread over the image: 0 if all are in one cell, 1 if each is in a cell of its own.

    A query is in that of 11 x 11 cells in which the centre of mass of its map, after `min_max_normalise`, lies. With p
    the share of the queries in each cell, the result is the entropy -sum p log p, divided by its highest possible
    value, the log of the number of queries or, if there are fewer cells, of cells. The centre of a map that covers the
    whole image is the image's centre; a map that is 0 everywhere has no centre and does not count.
    """
    normalised = min_max_normalise(maps)
    normalised = normalised[normalised.any(axis=(1, 2))]
    if len(normalised) < 2:
        return 0.0
    weights = normalised.sum(axis=(1, 2))
    centres = (np.arange(maps.shape[1]) + 0.5) / maps.shape[1]  # of pixels, in [0, 1]
    rows, columns = normalised.sum(axis=2) @ centres / weights, normalised.sum(axis=1) @ centres / weights
    cells = (CELLS * rows).astype(int) * CELLS + (CELLS * columns).astype(int)
    shares = np.bincount(cells) / len(cells)
    shares = shares[shares > 0]
    return float((shares * np.log(1 / shares)).sum() / log(min(len(cells), CELLS**2)))


def map_grid(maps: Maps) -> NDArray[np.uint8]:
    """All maps after `min_max_normalise`, in rows on white, coloured from dark (0) to light (1): RGB (H, W, 3)."""
    count, side = maps.shape[:2]
    square = ceil(sqrt(count))
    # Full rows, where that is possible.
    columns = next((number for number in range(square, 2 * square) if count % number == 0), square)
    rows = ceil(count / columns)
    canvas = np.full((rows * (side + GAP) - GAP, columns * (side + GAP) - GAP, 3), 255, np.uint8)
    for number, normalised in enumerate(min_max_normalise(maps)):
        top, left = (index * (side + GAP) for index in divmod(number, columns))
        canvas[top : top + side, left : left + side] = colormaps["viridis"](normalised, bytes=True)[..., :3]
    return canvas


@rc_context({"text.parse_math": False})  # names may contain dollar signs
def draw_activations(models: Mapping[str, Maps], path: str | Path) -> None:
    """Draw a grid of each model's maps into one image file, with its name, overlap and entropy above it."""
    columns = len(models) if len(models) < 4 else ceil(sqrt(len(models)))
    rows = ceil(len(models) / columns)
    grids = {name: map_grid(maps) for name, maps in models.items()}
    tallest = max(picture.shape[0] / picture.shape[1] for picture in grids.values())
    titles = {
        name: f"{fill(name, TITLE)}\noverlap {mean_overlap(maps):.2f}, entropy {location_entropy(maps):.2f}"
        for name, maps in models.items()
    }
    above = 0.35 + 0.2 * max(title.count("\n") for title in titles.values())
    figure = Figure(figsize=(5 * columns, (5 * tallest + above) * rows))
    figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.1)
    FigureCanvasAgg(figure)
    for number, name in enumerate(models, 1):
        axes = figure.add_subplot(rows, columns, number, anchor="N")
        axes.imshow(grids[name])
        axes.set_title(titles[name], fontsize=11)
        axes.axis("off")
    figure.savefig(path, dpi=200)
