"""What a shard set holds, in words and as distributions."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stage1_proposals.generators.registry import describe_generator
from stage1_proposals.shards import ImageRecord, ShardSet

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


def describe_shards(shards: ShardSet) -> Iterator[str]:
    """What a shard set holds, line by line: generator, clusters, images that failed, and distributions.

    Raises:
        ShardError: a shard is damaged or missing.
    """
    yield f"made by {describe_generator(shards.request.generator)} on {shards.backbone.name}, D = {shards.feature_dim}"
    clustered = sum(reader.clusters is not None for reader in shards.readers())
    if clustered:
        yield f"clusters in {clustered} of {len(shards.entries)} shards"
    failures = [failure for reader in shards.readers() for failure in reader.failures()]
    yield f"{len(failures)} images failed" + (":" if failures else "")
    yield from (f"  {name}: {reason}" for name, reason in failures)
    yield f"{'':<16} {'min':>8} {'25 %':>8} {'median':>8} {'75 %':>8} {'max':>8}  histogram, min to max"
    yield from (distribution.line() for distribution in distributions(shards.records()))
