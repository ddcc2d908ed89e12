"""What a CPU can train: a schedule of its own, and as many images at a time as its memory holds."""

from mmengine.config import Config
from mmengine.dist import get_world_size

from stage1_proposals.common.system import available_memory
from stage2_training.config.image_sizes import image_scales

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
