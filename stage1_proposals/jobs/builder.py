"""Building one shard: images through the backbone and the generator into a file. Each process has one builder."""

import os
import socket
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import torch

from stage1_proposals.backbones.extractor import build_extractor, speed_up
from stage1_proposals.backbones.tiles import tiled_features
from stage1_proposals.common.errors import UserError
from stage1_proposals.common.system import configure_process, keep_freed_memory
from stage1_proposals.generators.base import Batch, ImageInfo, to_record
from stage1_proposals.images.batching import batch_by_size, load_images
from stage1_proposals.images.decode import ImageError
from stage1_proposals.jobs.request import Recipe, ShardTask, check_same_request
from stage1_proposals.jobs.store import Store, stored_manifest
from stage1_proposals.shards import (
    BackboneRecord,
    ImageRecord,
    Request,
    ShardEntry,
    ShardError,
    ShardReader,
    shard_file_name,
    to_columns,
    verify_shard,
    write_shard,
)

DECODE_THREADS = 2  # Pillow releases Python's lock while it decodes


def software() -> str:
    """Name and version of this software; a checkout that is not installed has no version."""
    try:
        return f"saliency-prompt {version('saliency-prompt')}"
    except PackageNotFoundError:
        return "saliency-prompt"


class ShardBuilder:
    """Builds the shards of one request and holds the backbone for it. Each process has one.

    On a CPU the number of PyTorch's threads changes the last bits of convolutions, so callers set it to one: shards are
    then the same for any number of workers, and one worker per core is as fast as one worker with all cores.

    One shard is computed at a time; another thread may write it while the next one is computed.

    Args:
        recipe: how images become proposals.
        request: the job's request.
        store: where the shard set is.
        retry_failed: in existing shards, read the images again that failed.
    """

    def __init__(self, recipe: Recipe, request: Request, store: Store, retry_failed: bool) -> None:
        self.recipe = recipe
        self.request = request
        self.store = store
        self.retry_failed = retry_failed
        extractor = build_extractor(recipe.backbone, recipe.weights, recipe.settings.feature_stride)
        self.backbone = speed_up(extractor, recipe.precision).to(recipe.device)

    def compute(self, task: ShardTask, progress: Callable[[int], None]) -> Callable[[], ShardEntry]:
        """Compute a shard, unless a valid shard of this request exists.

        Args:
            progress: called with the number of images done since the last call.

        Returns:
            A function that writes the shard and returns its entry in the manifest.
        """
        with self.store.reading(self._file_name(task.index)) as path:
            entry = self._valid_shard(path, task)
            if entry is not None and not (self.retry_failed and entry.failures):
                progress(len(task.names))
                return lambda: entry
            kept: list[ImageRecord] = []
            if entry is not None:
                with closing(ShardReader(path)) as reader:
                    kept = list(reader.records())
        progress(len(kept))
        records, failures = self._records(task.without({record.file_name for record in kept}), progress)
        records = sorted([*kept, *records], key=lambda record: record.file_name)  # the order of the image list
        return lambda: self._write(task.index, records, failures)

    def _file_name(self, index: int) -> str:
        return shard_file_name(index, self.request.shard_count)

    def _write(self, index: int, records: list[ImageRecord], failures: list[tuple[str, str]]) -> ShardEntry:
        columns = to_columns(records, failures, self.request.backbone.feature_dim)
        with self.store.writing(self._file_name(index)) as path:
            content_sha256 = write_shard(path, columns, self.request, index, software())
        return ShardEntry(
            file=self._file_name(index),
            images=len(records),
            proposals=sum(map(len, records)),
            failures=len(failures),
            content_sha256=content_sha256,
        )

    def _valid_shard(self, path: Path, task: ShardTask) -> ShardEntry | None:
        """The entry of an existing shard that is undamaged and was made by this request of these images; else None."""
        if not path.exists():
            return None
        try:
            entry = verify_shard(path, decode_masks=False)
            with closing(ShardReader(path)) as reader:
                attributes = reader.attributes
                ids = dict(zip(reader.file_names(), reader.column("images/id").tolist(), strict=True))
                failed = [name for name, _ in reader.failures()]
            # A shard states this part of the request that it was made by.
            shard_request = replace(
                self.request,
                image_root=attributes["image_root"],
                generator=attributes["generator"],
                backbone=BackboneRecord.from_json(attributes["backbone"], "backbone"),
            )
        except ShardError:
            return None
        expected_ids = dict(zip(task.names, task.ids, strict=True))
        is_same = (
            not shard_request.differences(self.request)
            and sorted([*ids, *failed]) == list(expected_ids)
            and ids.items() <= expected_ids.items()
        )
        return entry if is_same else None

    def _records(
        self, task: ShardTask, progress: Callable[[int], None]
    ) -> tuple[list[ImageRecord], list[tuple[str, str]]]:
        """Records of a task's images, in order, and (name, reason) of those that failed."""
        recipe, settings, names = self.recipe, self.recipe.settings, task.names
        images = load_images(
            [Path(self.request.image_root, name) for name in names],
            settings.short_side,
            settings.long_side,
            self.backbone.spec.input_step,
            threads=DECODE_THREADS,
            prefetch=2 * (DECODE_THREADS if settings.full_size else settings.batch_size),
            full_size=settings.full_size,
        )
        records: dict[int, ImageRecord] = {}
        failures: dict[int, str] = {}
        for batch in batch_by_size(images, settings.batch_size, settings.tile):
            if batch[0].error is not None:
                failures |= {image.index: str(image.error) for image in batch}
            else:
                pixels = torch.from_numpy(np.stack([image.pixels for image in batch]))
                inputs = pixels.to(recipe.device).permute(0, 3, 1, 2)  # a channels_last view
                features = tiled_features(self.backbone, inputs, settings.tile)
                infos = [ImageInfo(task.ids[image.index], names[image.index], image.size) for image in batch]
                results = recipe.generator(Batch(features, infos, self.request.image_root, inputs))
                for image, info, proposals in zip(batch, infos, results, strict=True):
                    if isinstance(proposals, ImageError):
                        failures[image.index] = str(proposals)
                    else:
                        records[image.index] = to_record(proposals, info)
            progress(len(batch))
        return [records[key] for key in sorted(records)], [(names[key], failures[key]) for key in sorted(failures)]


def build_on_node(recipe: Recipe, request: Request, store: Store, retry_failed: bool) -> ShardBuilder:
    """Prepare a Ray worker's process and make its builder; the node must see the driver's images and store.

    Raises:
        UserError: the node does not see them, or the weights are missing or do not fit; the message names the node.
    """
    configure_process()
    keep_freed_memory()
    torch.set_num_threads(1)
    try:
        if not os.path.isdir(request.image_root):
            raise UserError(f"no image folder {request.image_root} on this node; each needs it at the same path")
        if stored_manifest(store) is None:
            raise UserError(
                f"{store} is not the same storage on this node; SHARDS must be a folder all nodes share, or a URL"
            )
        check_same_request(store, request)
        return ShardBuilder(recipe, request, store, retry_failed)
    except UserError as error:
        raise UserError(f"on {socket.gethostname()}: {error}") from error
