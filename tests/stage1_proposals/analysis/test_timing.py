"""What takes an image's time: the backbone and the generator, each by itself."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from stage1_proposals.analysis.timing import seconds_per_image
from stage1_proposals.generators.saliency import SaliencyGenerator
from stage1_proposals.jobs.request import Job


class SlowGenerator(SaliencyGenerator):
    """Works a tenth of a second longer for an image, half a second the first time."""

    def __call__(self, batch: Any) -> Any:
        seconds = 0.1 * len(batch.images) if seen else 0.5
        seen.append(len(batch.images))
        end = time.thread_time() + seconds
        while time.thread_time() < end:
            pass
        return super().__call__(batch)


seen: list[int] = []


def test_the_generators_time_is_its_own_and_the_first_image_does_not_count(make_job: Callable[..., Job]) -> None:
    job = make_job(short_side=32, long_side=32, batch_size=2)
    seen.clear()
    backbone, generator = seconds_per_image(replace(job, recipe=replace(job.recipe, generator=SlowGenerator())), 3)
    assert (seen[0], sum(seen[1:])) == (1, 3)
    assert generator == pytest.approx(0.1, rel=0.3)
    assert backbone > 0
