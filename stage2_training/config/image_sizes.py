"""What the network sees of an image: whole, or in tiles; and how large."""

from collections.abc import Iterator
from typing import Any

from mmengine.config import Config

from stage1_proposals.common.errors import UserError

TILED_LOOPS = "stage2_training.inference.tiled_loops"
# Evaluations are that much rarer in tiles, in which an image takes ten passes and more; but there are a few.
TILED_INTERVAL, LEAST_EVALUATIONS = 4, 5


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


def resize_images(dataset: Any, size: int) -> None:
    """Let the pipeline of a dataset's config resize images to fit into a square of `size` pixels.

    Raises:
        UserError: nothing in it resizes to a fixed size.
    """
    transforms = [transform for transform in dataset.pipeline if transform.type == "Resize"]
    if not transforms:
        raise UserError(
            f"--image-size {size}: the pipeline of {dataset.type} has no Resize transform; use another --schedule, or "
            f"set the scale with --cfg-options"
        )
    for transform in transforms:
        transform.scale = (size, size)


def set_scales(dataset: Any, size: tuple[int, int]) -> None:
    """Let the pipeline of a dataset's config fit images into this (width, height) wherever it changes their size."""
    for transform in dataset.get("pipeline", ()):
        scale = transform.get("scale")
        if isinstance(scale, list | tuple):
            transform["scale"] = [size] * len(scale) if isinstance(scale[0], list | tuple) else size


def see_tiles(config: Config, side: int) -> None:
    """Let a run train on random square tiles of its images, and evaluate them in overlapping ones, in place.

    Args:
        config: gets `tiles`, the side, which `Predictor` reads.
        side: in pixels of the image.

    Raises:
        UserError: nothing in the training pipeline loads images.
    """
    config.tiles = side
    dataset = config.train_dataloader.dataset
    pipeline = list(dataset.pipeline)
    loading = [number for number, transform in enumerate(pipeline) if transform.type.split(".")[-1].startswith("Load")]
    if not loading:
        raise UserError(f"tiles of {side} pixels: no transform of {dataset.type} loads images; use another --schedule")
    loaded = loading[-1]
    dataset.pipeline = [*pipeline[: loaded + 1], {"type": "RandomTile", "side": side}, *pipeline[loaded + 1 :]]
    if "val_cfg" in config:
        epochs, interval = config.train_cfg.max_epochs, config.train_cfg.get("val_interval", 1)
        config.train_cfg.val_interval = max(interval, min(TILED_INTERVAL * interval, epochs // LEAST_EVALUATIONS))
    for part in ("val", "test"):
        _set_loop(config, part, side)


def evaluate_in_tiles(config: Config, side: int) -> None:
    """Let the test images of a config be seen in tiles of this side, or, with 0, as a whole; in place."""
    config.tiles = side
    _set_loop(config, "test", side)


def _set_loop(config: Config, part: str, side: int) -> None:
    """Set MMEngine's loop of `val` or `test`, if there is one, or that in tiles; a loop of the user's own stays."""
    key, name = f"{part}_cfg", f"{part.title()}Loop"
    loop = dict(config.get(key) or {})
    if loop.get("type") not in (name, f"Tiled{name}"):
        return
    loop.pop("side", None)
    config[key] = {**loop, "type": f"Tiled{name}", "side": side} if side else {**loop, "type": name}
    imports = config.custom_imports.imports
    if side and TILED_LOOPS not in imports:
        config.custom_imports.imports = [*imports, TILED_LOOPS]
