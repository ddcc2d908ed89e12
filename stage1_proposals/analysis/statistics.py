"""Distributions of what a shard set holds."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stage1_proposals.shards import ImageRecord

BARS = " ▁▂▃▄▅▆▇█"


@dataclass(frozen=True)
class Distribution:
    """The values of one quantity."""

    name: str
    values: NDArray[np.float64]

    def line(self, bins: int = 24) -> str:
        """One line of text: minimum, quartiles, maximum, and a histogram between minimum and maximum."""
        if not len(self.values):
            return f"{self.name:<16} none"
        low, q1, median, q3, high = np.quantile(self.values, (0, 0.25, 0.5, 0.75, 1))
        counts, _ = np.histogram(self.values, bins=bins)
        heights = np.ceil(counts / counts.max() * (len(BARS) - 1)).astype(int)
        bars = "".join(BARS[height] for height in heights)
        return f"{self.name:<16} {low:8.3g} {q1:8.3g} {median:8.3g} {q3:8.3g} {high:8.3g}  {bars}"


def distributions(records: Iterable[ImageRecord]) -> list[Distribution]:
    """Distributions of masks per image, mask area as a fraction of the image, and score."""
    counts: list[int] = []
    areas: list[NDArray[np.float64]] = []
    scores: list[NDArray[np.float32]] = []
    for record in records:
        counts.append(len(record))
        areas.append(record.area / (record.height * record.width))
        scores.append(record.score)
    return [
        Distribution("masks per image", np.array(counts, float)),
        Distribution("area / image", np.concatenate([np.zeros(0), *areas])),
        Distribution("score", np.concatenate([np.zeros(0), *scores])),
    ]
