"""What a CPU can train: a schedule of its own, and as many images at a time as its memory holds."""

from collections.abc import Iterator
from typing import Any

from mmengine.config import Config
from mmengine.dist import get_world_size

from stage1_proposals.common.system import available_memory

# Measured on forward and backward passes of K-Net, with a ResNet-50 and with EfficientNet-Lite0, and of Mask2Former:
# 1.3 GB for a process with its libraries and model, and 1.1 to 2.1 GB per million pixels of the batch.
BYTES_OF_PROCESS, BYTES_PER_PIXEL = 1.5e9, 2100
# Many objects, which come with many queries, add their masks: K-Net with masks at stride 4, 150 queries and 100 objects
# in each image took 3.6 GB per million pixels, 0.4 GB of them for the queries.
MEASURED_QUERIES, BYTES_PER_QUERY = 100, 25


def fit_memory(config: Config, queries: int) -> None:
    """Lower the images that a process takes at a time to what fits the free memory, in place.

    The total batch stays as it is; a step takes more passes. Without it, the kernel ends the run without a word.

    Args:
        config: of a run.
        queries: of its model.
    """
    bytes_per_pixel = BYTES_PER_PIXEL + BYTES_PER_QUERY * max(0, queries - MEASURED_QUERIES)
    pixels = max((width * height for width, height in image_scales(config.train_dataloader.dataset)), default=0)
    free = available_memory()
    if pixels and free is not None:
        images = int((free / get_world_size() - BYTES_OF_PROCESS) / (pixels * bytes_per_pixel))
        config.train_dataloader.batch_size = max(1, min(config.train_dataloader.batch_size, images))


def describe_images(config: Config) -> str:
    """Return the largest size that training images are resized to, as `images up to 512 x 512`."""
    scales = list(image_scales(config.train_dataloader.dataset))
    if not scales:
        return "images of any size"
    width, height = max(scales, key=lambda scale: scale[0] * scale[1])
    return f"images up to {width} x {height}"


def image_scales(dataset: Any) -> Iterator[tuple[int, int]]:
    """The sizes (width, height) into which the transforms of a dataset's pipeline fit images."""
    for transform in dataset.get("pipeline", ()):
        scale = transform.get("scale")
        if isinstance(scale, list | tuple) and len(scale):
            several = isinstance(scale[0], list | tuple)  # of `RandomResize`
            yield from (tuple(each) for each in (scale if several else [scale]))
