"""The job: one shard is one idempotent task, run by Ray actors or in-process with `workers=0`.

What a shard holds depends on the request alone, so a run that was killed and run again, on any number of
workers, ends with the shards of an undisturbed one.
"""

import json
import os
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stage1_proposals.allocator import keep_freed_memory
from stage1_proposals.backbones import build_backbone, file_sha256, get_spec, locate_weights
from stage1_proposals.directory import sole_user, writing
from stage1_proposals.errors import UserError
from stage1_proposals.generators import ProposalGenerator
from stage1_proposals.images import batch_by_size, load_photos
from stage1_proposals.photo_list import PhotoList
from stage1_proposals.proposals import to_record
from stage1_proposals.shards import (
    ImageRecord,
    ShardError,
    ShardReader,
    read_manifest,
    shard_file_name,
    to_columns,
    verify_shard,
    write_manifest,
    write_shard,
)

DECODE_THREADS = 2  # Pillow decodes outside Python's lock
SOFTWARE = "saliency-prompt 0.1.0"
GO_ON = "finished shards are kept, run again to go on"


@dataclass(frozen=True)
class Job:
    """Everything that decides what the shards hold, and on what device they are made.

    Attributes:
        photos: the photos, in order.
        generator: makes proposals from feature maps.
        backbone: catalogue name.
        weights: checkpoint file, or None for the catalogue's own.
        short_side, long_side: input size in pixels: shorter side, and the most for the longer one.
        images_per_shard: photos per shard.
        batch_size: photos per forward pass, at most.
        device: torch device.
    """

    photos: PhotoList
    generator: ProposalGenerator
    backbone: str
    weights: str | None
    short_side: int
    long_side: int
    images_per_shard: int
    batch_size: int
    device: str

    def __post_init__(self) -> None:
        for name in ("short_side", "long_side", "images_per_shard", "batch_size"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise UserError(f"{name} must be a positive whole number, not {value!r}")

    @property
    def shard_count(self) -> int:
        return ceil(len(self.photos) / self.images_per_shard)

    def shard_range(self, index: int) -> range:
        """Positions in the photo list that shard `index` covers."""
        first = index * self.images_per_shard
        return range(first, min(first + self.images_per_shard, len(self.photos)))

    def request(self) -> dict[str, Any]:
        """What is asked for, JSON-ready; reads the weights to hash them."""
        spec, path = get_spec(self.backbone), locate_weights(self.backbone, self.weights)
        return {
            "image_root": str(self.photos.root),
            "image_count": len(self.photos),
            "image_list_sha256": self.photos.sha256(),
            "images_per_shard": self.images_per_shard,
            "shard_count": self.shard_count,
            "generator": {
                **self.generator.parameters(),
                "short_side": self.short_side,
                "long_side": self.long_side,
            },
            "backbone": {
                "name": self.backbone,
                "weights": str(path.resolve()),
                "sha256": file_sha256(path),
                "stride": spec.stride,
                "feature_dim": spec.feature_dim,
            },
        }


class ShardBuilder:
    """Builds shards of one job; holds the backbone. One per process.

    Args:
        job: what to build.
        request: `job.request()`.
        directory: the shard set's.
        progress: called with the number of photos done since the last call.
        retry_failed: read the photos that failed once more, in shards that are there.
    """

    def __init__(
        self, job: Job, request: dict[str, Any], directory: Path, progress: Callable[[int], None], retry_failed: bool
    ) -> None:
        # On CPU the thread count changes convolutions' last bits: with one per builder, shards are the same on
        # any number of workers, and one worker per core is as fast as one with all cores.
        torch.set_num_threads(1)
        keep_freed_memory()
        self.job = job
        self.request = request
        self.directory = directory
        self.progress = progress
        self.retry_failed = retry_failed
        self.backbone = build_backbone(job.backbone, job.weights).to(job.device)
        self.backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def build(self, index: int) -> dict[str, Any]:
        """Shard `index`'s line of the manifest; the shard is built unless a sound one of this request is there."""
        path = self.directory / shard_file_name(index, self.job.shard_count)
        positions, names = self.job.shard_range(index), self.job.photos.names
        row = self._sound_shard(path, positions)
        if row is not None and not (self.retry_failed and row["failures"]):
            self.progress(len(positions))
            return row
        there = _all_records(path) if row is not None else []
        self.progress(len(there))
        done = {record.file_name for record in there}
        records, failures = self._records([position for position in positions if names[position] not in done])
        records = sorted([*there, *records], key=lambda record: record.file_name)  # the photo list's order
        columns = to_columns(records, failures, self.request["backbone"]["feature_dim"])
        with writing(path, GO_ON):
            content = write_shard(
                path,
                columns,
                shard_index=index,
                shard_count=self.job.shard_count,
                image_root=self.request["image_root"],
                generator=self.request["generator"],
                backbone=self.request["backbone"],
                software=SOFTWARE,
            )
        return {
            "file": path.name,
            "images": len(records),
            "proposals": sum(map(len, records)),
            "failures": len(failures),
            "content_sha256": content,
        }

    def _sound_shard(self, path: Path, positions: Sequence[int]) -> dict[str, Any] | None:
        """The manifest's line of a shard that is there, undamaged, of this request and of these photos."""
        if not path.exists():
            return None
        reader = ShardReader(path)
        try:
            row = verify_shard(path, decode_masks=False)
            attributes = reader.attributes
            there = dict(zip(reader.file_names(), reader.file["images/id"][...].tolist(), strict=True))
            failed = [name for name, _ in reader.failures()]
        except ShardError:
            return None
        finally:
            reader.close()
        asked = {self.job.photos.names[position]: self.job.photos.ids[position] for position in positions}
        same = (
            attributes["image_root"] == self.request["image_root"]
            and all(_comparable(attributes[key]) == _comparable(self.request[key]) for key in ("generator", "backbone"))
            and sorted([*there, *failed]) == list(asked)
            and there.items() <= asked.items()
        )
        return row if same else None

    def _records(self, positions: Sequence[int]) -> tuple[list[ImageRecord], list[tuple[str, str]]]:
        """Records of the photos at these positions, in order, and (name, reason) of those that failed."""
        job = self.job
        names = [job.photos.names[position] for position in positions]
        photos = load_photos(
            [job.photos.root / name for name in names],
            job.short_side,
            job.long_side,
            self.backbone.spec.stride,
            threads=DECODE_THREADS,
            ahead=2 * job.batch_size,
        )
        records: dict[int, ImageRecord] = {}
        failures: dict[int, str] = {}
        for batch in batch_by_size(photos, job.batch_size):
            if batch[0].error is not None:
                failures |= {photo.index: str(photo.error) for photo in batch}
            else:
                pixels = torch.from_numpy(np.stack([photo.pixels for photo in batch]))
                features = self.backbone(pixels.to(job.device).permute(0, 3, 1, 2))  # a channels_last view
                for photo, feature in zip(batch, features, strict=True):
                    proposals = job.generator(feature, photo.size)
                    image_id = job.photos.ids[positions[photo.index]]
                    records[photo.index] = to_record(proposals, image_id, names[photo.index], photo.size)
            self.progress(len(batch))
        return [records[key] for key in sorted(records)], [(names[key], failures[key]) for key in sorted(failures)]


def _all_records(path: Path) -> list[ImageRecord]:
    with closing(ShardReader(path)) as reader:
        return [reader.read(row) for row in range(len(reader))]


def _comparable(value: dict[str, Any]) -> dict[str, Any]:
    """A part of a request without what does not change the outcome: weights count by hash, not by path."""
    return {key: item for key, item in json.loads(json.dumps(value)).items() if key != "weights"}


def _flatten(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, item in _comparable(value).items():
        flat |= _flatten(item, f"{prefix}{key}.") if isinstance(item, dict) else {prefix + key: item}
    return flat


def check_same_request(directory: Path, request: dict[str, Any]) -> None:
    """Refuse a directory that holds the work of another request.

    Raises:
        UserError: naming every difference.
    """
    manifest = read_manifest(directory)
    if manifest is None:
        return
    there, asked = _flatten(manifest["request"]), _flatten(request)
    differences = [
        f"{key} is {there.get(key)!r} there, {asked.get(key)!r} asked for"
        for key in sorted(there | asked)
        if there.get(key) != asked.get(key)
    ]
    if differences:
        raise UserError(f"{directory} holds other work: {'; '.join(differences)}. Choose another SHARDS directory")


def default_workers(device: str) -> int:
    """One actor per GPU, or one per CPU core."""
    return torch.cuda.device_count() if device == "cuda" else os.cpu_count() or 1


def run(
    job: Job, directory: str | Path, workers: int, progress: Callable[[int], None], retry_failed: bool = False
) -> list[dict[str, Any]]:
    """Make the shard set, going on where an earlier run of the same request stopped.

    Args:
        directory: the shard set's; made when missing.
        workers: Ray actors, or 0 for this process alone.
        progress: called with numbers of photos done; photos of shards already there count too.
        retry_failed: read the photos that failed before once more; what was made of the others stays as it is.

    Returns:
        The manifest's line of each shard.

    Raises:
        UserError: the directory holds other work, is in use or cannot be made; weights that do not fit.
    """
    directory = Path(directory).resolve()
    request = job.request()
    build_backbone(job.backbone, job.weights)  # a checkpoint that does not fit fails here, not on every worker
    with sole_user(directory):
        check_same_request(directory, request)
        with writing(directory, GO_ON):
            if retry_failed or read_manifest(directory) is None:
                write_manifest(directory, request, None)
            for ours in (".shard-*.h5.*.tmp", ".manifest.json.*.tmp"):
                for leftover in directory.glob(ours):
                    leftover.unlink(missing_ok=True)
        if workers == 0:
            builder = ShardBuilder(job, request, directory, progress, retry_failed)
            rows = [builder.build(index) for index in range(job.shard_count)]
        else:
            from stage1_proposals.ray_pool import run_on_ray

            actors = min(workers, job.shard_count)
            make = partial(ShardBuilder, job, request, directory, retry_failed=retry_failed)
            rows = run_on_ray(make, job.shard_count, actors, job.device == "cuda", progress)
        with writing(directory, GO_ON):
            write_manifest(directory, request, rows)
    return rows
