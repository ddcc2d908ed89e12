"""Proposals as a function: what `make proposals` calls, and what a notebook can call."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stage1_proposals.common.system import choose_device, configure_process, keep_freed_memory
from stage1_proposals.generators.registry import build_generator, default_config, read_settings

if TYPE_CHECKING:
    from stage1_proposals.jobs.request import Job
    from stage1_proposals.shards import ShardSet

DEFAULT_BACKBONE = "lite0_imagenet"


def propose(
    images: str | Path,
    shards: str | Path = "shards",
    *,
    generator: str | None = None,
    config: str | Path | None = None,
    changes: Sequence[str] = (),
    objects: str = "any",
    workers: int | None = 0,
    progress: Callable[[int], None] = lambda count: None,
    retry_failed: bool = False,
    **settings: Any,
) -> "ShardSet":
    """Make a shard set of the pseudo masks and seed features of images; called again, it makes what is missing.

    Args:
        images: folder, COCO JSON or text list.
        shards: directory of the shard set.
        generator, config, changes, objects: name of the generator, TOML file of settings, KEY=VALUE changes of them,
            and `any` or `small` objects; see `read_settings`.
        workers: Ray actors; 0: this process alone; None: one per GPU or core.
        progress: called with numbers of images done.
        retry_failed: read the images again that failed before.
        settings: those of `build_job`.

    Raises:
        UserError: something that is named is not there or cannot be used.
    """
    configure_process()
    chosen = read_settings(Path(config) if config else None, generator, changes, objects)
    job = build_job(images, shards, chosen, owner=str(config or default_config(generator)), workers=workers, **settings)
    from stage1_proposals.jobs.run import run
    from stage1_proposals.shards import ShardSet

    run(job, shards, workers, progress, retry_failed)
    return ShardSet.open(Path(shards))


def build_job(
    images: str | Path,
    shards: str | Path,
    settings: Mapping[str, Any],
    *,
    owner: str,
    workers: int | None = None,
    image_root: str | Path | None = None,
    backbone: str = DEFAULT_BACKBONE,
    weights: str | Path | None = None,
    device: str | None = None,
    precision: str | None = None,
    sizes: Mapping[str, int | None] | None = None,
) -> "Job":
    """The job of making a shard set, with this process prepared for it.

    Args:
        images, shards, workers: as `propose`.
        settings: of a config of `configs/proposals`, see `read_settings`.
        owner: what the settings belong to, for error messages.
        image_root: folder that the paths of a JSON or a text list are relative to.
        backbone: a name of the catalogue, or any model of timm.
        weights: the backbone's checkpoint.
        device: `cpu`, `cuda`, or None for the GPU if there is one.
        precision: `float32` or `bfloat16`; None: the faster one that the device has.
        sizes: of `JobSettings` by name, instead of the settings'; None leaves one as it is.

    Raises:
        UserError: something that is named is not there or cannot be used.
    """
    from stage1_proposals.images.listing import list_images

    listed = list_images(images, image_root, shards)
    device = choose_device(device, on_cluster=bool(os.environ.get("RAY_ADDRESS")) and workers != 0)
    keep_freed_memory()  # on a GPU, too: images are decoded on the CPU
    # Workers of a Ray cluster started here inherit this. Otherwise glibc gives their threads arenas, whose blocks it
    # returns to the kernel one by one whatever `keep_freed_memory` says, which costs up to a tenth of the time.
    os.environ.setdefault("MALLOC_ARENA_MAX", "1")
    # What needs no PyTorch comes first, because importing it takes seconds.
    from stage1_proposals.backbones.extractor import fastest_precision
    from stage1_proposals.common.settings import build_settings
    from stage1_proposals.jobs.request import Job, JobSettings, Recipe
    from stage1_proposals.jobs.store import open_store, stored_manifest

    defaults = dict(settings)
    chosen = build_generator(defaults.pop("generator"))
    recipe = Recipe(
        generator=chosen,
        backbone=backbone,
        weights=str(Path(weights).resolve()) if weights else None,
        device=device,
        precision=precision or fastest_precision(device),
        settings=build_settings(JobSettings, defaults, f"config {owner}").override(**(sizes or {})),
    )
    return Job(listed, recipe).continuing(stored_manifest(open_store(shards)))
