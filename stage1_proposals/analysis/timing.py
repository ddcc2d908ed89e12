"""How long the backbone and the generator of a job take for an image."""

import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from stage1_proposals.jobs.builder import ShardBuilder
from stage1_proposals.jobs.request import Job, ShardTask
from stage1_proposals.jobs.store import LocalStore
from stage1_proposals.jobs.tasks import one_thread


def seconds_per_image(job: Job, count: int) -> tuple[float, float]:
    """Measure a job's backbone and its generator on some of its images, taken from the whole list.

    On a CPU these are processor seconds of one core, which depend little on what else the machine does.

    Args:
        count: images, at most; one of them is computed once more before, which compiles and takes memory.

    Returns:
        Seconds an image of the backbone, and of the generator with its run lengths.
    """
    rows = slice(None, None, max(1, len(job.images) // count))
    names, ids = job.images.names[rows][:count], job.images.ids[rows][:count]
    generator = _Timed(job.recipe.generator, job.recipe.device)
    with TemporaryDirectory() as folder, one_thread():
        recipe = replace(job.recipe, generator=generator)  # type: ignore[arg-type]
        builder = ShardBuilder(recipe, job.request(), LocalStore(Path(folder)), retry_failed=False)
        backbone = _Timed(builder.backbone, job.recipe.device)
        builder.backbone = backbone  # type: ignore[assignment]
        for images in (1, len(names)):
            backbone.seconds = generator.seconds = 0.0
            builder.compute(ShardTask(0, names[:images], ids[:images]), lambda _: None)
    return backbone.seconds / len(names), generator.seconds / len(names)


class _Timed:
    """An object whose calls are timed; all else is the object's."""

    def __init__(self, called: Any, device: str) -> None:
        self.called, self.device, self.seconds = called, device, 0.0

    def __call__(self, *args: Any) -> Any:
        start = self._now()
        result = self.called(*args)
        self.seconds += self._now() - start
        return result

    def __getattr__(self, name: str) -> Any:
        return getattr(self.called, name)

    def _now(self) -> float:
        if self.device == "cpu":
            return time.thread_time()
        torch.cuda.synchronize()
        return time.perf_counter()
