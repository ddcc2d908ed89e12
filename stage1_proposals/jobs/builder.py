"""Building one shard: images through the backbone and the generator into a file. One builder per process."""

import os
import socket
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stage1_proposals.backbones.extractor import build_extractor, speed_up
from stage1_proposals.common.errors import UserError
from stage1_proposals.common.system import configure_process, keep_freed_memory
from stage1_proposals.generators.base import Batch, ImageInfo, to_record
from stage1_proposals.images.batching import batch_by_size, load_images
from stage1_proposals.images.decode import ImageError
from stage1_proposals.jobs.request import Recipe, ShardTask, check_same_request, comparable
from stage1_proposals.jobs.store import Store, stored_manifest
from stage1_proposals.shards import (
    ImageRecord,
    ShardError,
    ShardReader,
    shard_file_name,
    to_columns,
    verify_shard,
    write_shard,
)

DECODE_THREADS = 2  # Pillow decodes outside Python's lock
SOFTWARE = "saliency-prompt 0.1.0"

Row = dict[str, Any]


class ShardBuilder:
    """Builds the shards of one request; holds the backbone. One per process.

    One shard is computed at a time; it may be written while the next is computed, in another thread.

    Args:
        recipe: how images become proposals.
        request: the job's, whole.
        store: the shard set's.
        retry_failed: read the images that failed once more, in shards that are there.
    """

    def __init__(self, recipe: Recipe, request: dict[str, Any], store: Store, retry_failed: bool) -> None:
        # On CPU the thread count changes convolutions' last bits: with one per builder, shards are the same on
        # any number of workers, and one worker per core is as fast as one with all cores.
        torch.set_num_threads(1)
        configure_process()
        keep_freed_memory()
        self.recipe = recipe
        self.request = request
        self.store = store
        self.retry_failed = retry_failed
        extractor = build_extractor(recipe.backbone, recipe.weights)
        self.backbone = speed_up(extractor, recipe.precision).to(recipe.device)

    def compute(self, task: ShardTask, progress: Callable[[int], None]) -> Callable[[], Row]:
        """Compute a shard; what is returned writes it and gives its line of the manifest.

        A sound shard of this request that is there already is kept.

        Args:
            progress: called with the number of images done since the last call.
        """
        with self.store.reading(self._file_name(task.index)) as path:
            row = self._sound_shard(path, task)
            if row is not None and not (self.retry_failed and row["failures"]):
                progress(len(task.names))
                return lambda: row
            with closing(ShardReader(path)) as reader:
                there = list(reader.records()) if row is not None else []
        progress(len(there))
        records, failures = self._records(task.without({record.file_name for record in there}), progress)
        records = sorted([*there, *records], key=lambda record: record.file_name)  # the image list's order
        return lambda: self._write(task.index, records, failures)

    def _file_name(self, index: int) -> str:
        return shard_file_name(index, self.request["shard_count"])

    def _write(self, index: int, records: list[ImageRecord], failures: list[tuple[str, str]]) -> Row:
        columns = to_columns(records, failures, self.request["backbone"]["feature_dim"])
        with self.store.writing(self._file_name(index)) as path:
            content = write_shard(
                path,
                columns,
                shard_index=index,
                shard_count=self.request["shard_count"],
                image_root=self.request["image_root"],
                generator=self.request["generator"],
                backbone=self.request["backbone"],
                software=SOFTWARE,
            )
        return {
            "file": self._file_name(index),
            "images": len(records),
            "proposals": sum(map(len, records)),
            "failures": len(failures),
            "content_sha256": content,
        }

    def _sound_shard(self, path: Path, task: ShardTask) -> Row | None:
        """The manifest's line of a shard that is there, undamaged, of this request and of these images."""
        if not path.exists():
            return None
        try:
            row = verify_shard(path, decode_masks=False)
            with closing(ShardReader(path)) as reader:
                attributes = reader.attributes
                there = dict(zip(reader.file_names(), reader.column("images/id").tolist(), strict=True))
                failed = [name for name, _ in reader.failures()]
        except ShardError:
            return None
        asked = dict(zip(task.names, task.ids, strict=True))
        same = (
            attributes["image_root"] == self.request["image_root"]
            and all(comparable(attributes[key]) == comparable(self.request[key]) for key in ("generator", "backbone"))
            and sorted([*there, *failed]) == list(asked)
            and there.items() <= asked.items()
        )
        return row if same else None

    def _records(
        self, task: ShardTask, progress: Callable[[int], None]
    ) -> tuple[list[ImageRecord], list[tuple[str, str]]]:
        """Records of the images of a shard, in order, and (name, reason) of those that failed."""
        recipe, names = self.recipe, task.names
        images = load_images(
            [Path(self.request["image_root"], name) for name in names],
            recipe.short_side,
            recipe.long_side,
            self.backbone.spec.stride,
            threads=DECODE_THREADS,
            ahead=2 * recipe.batch_size,
        )
        records: dict[int, ImageRecord] = {}
        failures: dict[int, str] = {}
        for batch in batch_by_size(images, recipe.batch_size):
            if batch[0].error is not None:
                failures |= {image.index: str(image.error) for image in batch}
            else:
                pixels = torch.from_numpy(np.stack([image.pixels for image in batch]))
                features = self.backbone(pixels.to(recipe.device).permute(0, 3, 1, 2))  # a channels_last view
                infos = [ImageInfo(task.ids[image.index], names[image.index], image.size) for image in batch]
                found = recipe.generator(Batch(features, infos))
                for image, info, proposals in zip(batch, infos, found, strict=True):
                    if isinstance(proposals, ImageError):
                        failures[image.index] = str(proposals)
                    else:
                        records[image.index] = to_record(proposals, info)
            progress(len(batch))
        return [records[key] for key in sorted(records)], [(names[key], failures[key]) for key in sorted(failures)]


def build_on_node(recipe: Recipe, request: dict[str, Any], store: Store, retry_failed: bool) -> ShardBuilder:
    """A builder on a node of a cluster that sees the same images and the same store as the node that asks.

    Raises:
        UserError: it does not, naming the node; or weights that are not there or do not fit.
    """
    try:
        if not os.path.isdir(request["image_root"]):
            raise UserError(f"no image folder {request['image_root']} there; each node needs it at the same path")
        if stored_manifest(store) is None:
            raise UserError(f"{store} is another place there; SHARDS must be a folder all nodes share, or a URL")
        check_same_request(store, request)
        return ShardBuilder(recipe, request, store, retry_failed)
    except UserError as error:
        raise UserError(f"on {socket.gethostname()}: {error}") from error
