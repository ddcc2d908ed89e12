"""Where a detector's queries look on average (Figure 6), and in numbers how different that is from query to query."""

from collections.abc import Iterable, Mapping
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

CELLS = 11  # a side; an odd number, so that the image's middle is the middle of a cell
GAP = 8  # pixels between maps
TITLE = 44  # characters in a line above a picture


def mean_maps(masks: Iterable[Tensor]) -> tuple[Maps, int]:
    """The mean over images of masks (B, N, S, S), batch by batch, float64 (N, S, S); and how many images there were.

    Raises:
        UserError: there were none.
    """
    total, images = torch.zeros((), dtype=torch.float64), 0
    for batch in masks:
        total = total + batch.double().sum(dim=0).cpu()
        images += len(batch)
    if not images:
        raise UserError("no images to average over")
    return (total / images).numpy(), images


def stretch(maps: Maps) -> Maps:
    """Each map from its lowest value, now 0, to its highest, now 1; 0 everywhere where it has one value only.

    So a query that is sure of nothing still shows where it would rather look.
    """
    low, high = maps.min(axis=(1, 2), keepdims=True), maps.max(axis=(1, 2), keepdims=True)
    return np.divide(maps - low, high - low, out=np.zeros_like(maps), where=high > low)


def mean_overlap(maps: Maps) -> float:
    """Soft IoU, averaged over all pairs of maps: 1 when all are alike, 0 when none touches another.

    Of maps a and b as `stretch` gives them it is the sum over pixels of min(a, b), divided by that of max(a, b); 1
    when both are 0 everywhere.
    """
    flat = stretch(maps).reshape(len(maps), -1)
    sums = [(np.minimum(a, b).sum(), np.maximum(a, b).sum()) for a, b in combinations(flat, 2)]
    return float(np.mean([shared / either if either else 1.0 for shared, either in sums])) if sums else 1.0


def location_entropy(maps: Maps) -> float:
    """How evenly queries are spread over the image: 0 when all look at one place, 1 when each has its own.

    A query's place is that of 11 x 11 cells in which the centre of mass of its map, as `stretch` gives it, lies. With
    p the share of the queries in each cell, it is the entropy -sum p log p over the most that it could be, log of the
    number of queries (of cells, where there are more queries than cells). A map as wide as the image, which has no
    place of its own, has its centre in the middle; one that is 0 everywhere has none and does not count.
    """
    stretched = stretch(maps)
    stretched = stretched[stretched.any(axis=(1, 2))]
    if len(stretched) < 2:
        return 0.0
    weights = stretched.sum(axis=(1, 2))
    places = (np.arange(maps.shape[1]) + 0.5) / maps.shape[1]  # of pixels' middles, in [0, 1]
    rows, columns = stretched.sum(axis=2) @ places / weights, stretched.sum(axis=1) @ places / weights
    cells = (CELLS * rows).astype(int) * CELLS + (CELLS * columns).astype(int)
    shares = np.bincount(cells) / len(cells)
    shares = shares[shares > 0]
    return float((shares * np.log(1 / shares)).sum() / log(min(len(cells), CELLS**2)))


def mosaic(maps: Maps) -> NDArray[np.uint8]:
    """All maps, stretched, in colours from dark (lowest) to light, side by side in rows on white: RGB (H, W, 3)."""
    count, side = maps.shape[:2]
    square = ceil(sqrt(count))
    columns = next(
        (n for n in range(square, 2 * square) if count % n == 0), square
    )  # full rows, where that is possible
    rows = ceil(count / columns)
    canvas = np.full((rows * (side + GAP) - GAP, columns * (side + GAP) - GAP, 3), 255, np.uint8)
    for number, each in enumerate(stretch(maps)):
        top, left = (place * (side + GAP) for place in divmod(number, columns))
        canvas[top : top + side, left : left + side] = colormaps["viridis"](each, bytes=True)[..., :3]
    return canvas


@rc_context({"text.parse_math": False})  # a name with dollars is a name
def draw_activations(models: Mapping[str, Maps], path: str | Path) -> None:
    """A picture of each model's maps, its name and the two numbers above it, in one image file."""
    columns = len(models) if len(models) < 4 else ceil(sqrt(len(models)))
    rows = ceil(len(models) / columns)
    pictures = {name: mosaic(maps) for name, maps in models.items()}
    tallest = max(picture.shape[0] / picture.shape[1] for picture in pictures.values())
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
        axes.imshow(pictures[name])
        axes.set_title(titles[name], fontsize=11)
        axes.axis("off")
    figure.savefig(path, dpi=200)
