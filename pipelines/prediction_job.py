"""Predicting a list of images in blocks: each block is one idempotent task whose objects go to one file.

`OUT/predictions/` has `request.json`, which says what the objects were made of, and for each block of images
`block-00000-of-00004.jsonl` with a line for each image. A block's file appears under its name only when it is complete,
so a job that was killed goes on at the blocks that are missing.
"""

import json
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stage1_proposals.common.errors import UserError
from stage1_proposals.common.files import atomic_write, exclusive_lock, file_sha256, write_json, writing
from stage1_proposals.common.label_files import ImageLabels
from stage1_proposals.common.masks import to_xywh
from stage1_proposals.common.system import configure_process, keep_freed_memory
from stage2_training.runs.init_options import RUN_CONFIG, check_checkpoint, check_run

if TYPE_CHECKING:
    from stage1_proposals.images.listing import ImageList

FOLDER, REQUEST = "predictions", "request.json"
GO_ON = "finished blocks are kept, run again to go on"


@dataclass(frozen=True)
class PredictionRequest:
    """What decides which objects are found.

    Attributes:
        image_root: folder of the images.
        image_count, image_list_sha256: of the list of images.
        images_per_block: images per block, except the last one.
        config, checkpoint: SHA-256 of the run's config and of the weights.
        score: lowest score of an object.
        tile: side of the tiles that large images are cut into, in pixels; 0: they are not.
    """

    image_root: str
    image_count: int
    image_list_sha256: str
    images_per_block: int
    config: str
    checkpoint: str
    score: float
    tile: int

    @classmethod
    def of(cls, images: "ImageList", work_dir: Path, checkpoint: Path, score: float, tile: int) -> "PredictionRequest":
        """What is asked for with a checkpoint of the run in a work directory."""
        from stage1_proposals.jobs.request import default_shard_size

        return cls(
            image_root=str(images.root),
            image_count=len(images),
            image_list_sha256=images.sha256(),
            images_per_block=default_shard_size(len(images)),
            config=file_sha256(work_dir / RUN_CONFIG),
            checkpoint=file_sha256(checkpoint),
            score=score,
            tile=tile,
        )

    @property
    def block_count(self) -> int:
        return -(-self.image_count // self.images_per_block)


def find_run(work_dir: Path | None, checkpoint: Path | None) -> Path:
    """The work directory of the run to predict with.

    Args:
        work_dir: the directory; None: that of the checkpoint.
        checkpoint: a file in a run, or its directory.

    Raises:
        UserError: there is no run, or neither is named.
    """
    if work_dir is None:
        if checkpoint is None:
            raise UserError("nothing to predict with: pass --work-dir (WORK_DIR=) or --checkpoint (CHECKPOINT=)")
        check_checkpoint(str(checkpoint))
        work_dir = checkpoint if checkpoint.is_dir() else checkpoint.parent
        if not (work_dir / RUN_CONFIG).is_file():
            raise UserError(
                f"{checkpoint}: no {RUN_CONFIG} beside it, which says what it is; name the run's directory with "
                f"--work-dir (WORK_DIR=)"
            )
    check_run(work_dir)
    return work_dir.resolve()


@dataclass(frozen=True)
class Failure:
    """An image that could not be read, and why."""

    file_name: str
    reason: str


@dataclass(frozen=True)
class Block:
    """The images of one block: its number, and their names and ids in order."""

    index: int
    names: tuple[str, ...]
    ids: tuple[int, ...]


@dataclass(frozen=True)
class PredictionJob:
    """A request, and what is needed to do it.

    Attributes:
        work_dir: directory of the run, which has the config.
        checkpoint: file of the weights.
        out: folder to write to.
        device: torch device.
        retry_failed: read the images again that could not be read before.
    """

    request: PredictionRequest
    work_dir: Path
    checkpoint: Path
    out: Path
    device: str
    retry_failed: bool = False

    @property
    def folder(self) -> Path:
        return self.out / FOLDER

    def file(self, index: int) -> Path:
        """The file of a block."""
        return self.folder / f"block-{index:05d}-of-{self.request.block_count:05d}.jsonl"

    def run(self, images: "ImageList", workers: int | None, progress: Callable[[int], None]) -> None:
        """Find the objects of all images, going on where an earlier job of the same request stopped.

        Args:
            workers: number of Ray actors, 0 for this process alone, or None for one per GPU or core.
            progress: called with 0 as work begins, then with numbers of images done.

        Raises:
            UserError: the folder holds the objects of another request, is in use or cannot be written.
        """
        from stage1_proposals.jobs.tasks import run_tasks

        make_builder = partial(BlockBuilder if workers == 0 else _build_on_node, self)
        with exclusive_lock(self.folder):
            self._check_request()
            for leftover in self.folder.glob(".*.tmp"):
                leftover.unlink(missing_ok=True)
            run_tasks(make_builder, list(self._blocks(images)), workers, self.device == "cuda", progress)

    def _blocks(self, images: "ImageList") -> Iterator[Block]:
        for index in range(self.request.block_count):
            rows = slice(index * self.request.images_per_block, (index + 1) * self.request.images_per_block)
            yield Block(index, images.names[rows], images.ids[rows])

    def _check_request(self) -> None:
        path, asked = self.folder / REQUEST, asdict(self.request)
        try:
            stored = json.loads(path.read_bytes())
            if not isinstance(stored, dict):
                raise ValueError("no object")
        except FileNotFoundError:
            with writing(path, GO_ON):
                write_json(path, asked)
            return
        except ValueError as error:
            raise UserError(f"{path}: is damaged; remove the folder {self.folder}, or choose another OUT") from error
        differing = [key for key, value in asked.items() if stored.get(key) != value]
        if differing:
            what = ", ".join(f"{key} was {stored.get(key)!r}, requested {asked[key]!r}" for key in differing)
            raise UserError(f"{self.folder} holds what was found otherwise: {what}; choose another OUT (--out)")

    def results(self) -> Iterator[ImageLabels | Failure]:
        """The objects of each image, in order, or why there are none."""
        for index in range(self.request.block_count):
            yield from _read(self.file(index))


def _read(path: Path) -> Iterator[ImageLabels | Failure]:
    with path.open(encoding="utf-8") as file:
        for line in file:
            entry = json.loads(line)
            if "reason" in entry:
                yield Failure(**entry)
            else:
                counts = [one.encode() for one in entry.pop("counts")]
                yield ImageLabels(**{**entry, "size": tuple(entry["size"]), "counts": counts})


def _line(result: ImageLabels | Failure) -> str:
    entry: dict[str, Any] = dict(vars(result))
    if isinstance(result, ImageLabels):
        entry["counts"] = [one.decode() for one in result.counts]
    return json.dumps(entry) + "\n"


class BlockBuilder:
    """Finds the objects of blocks; each process has one, which holds the detector."""

    def __init__(self, job: PredictionJob) -> None:
        from stage2_training import quiet_imports

        with quiet_imports():
            from stage2_training.inference.predictor import Predictor

        self.job = job
        self.root = Path(job.request.image_root)
        self.predictor = Predictor.from_run(
            job.work_dir, job.checkpoint, min_score=job.request.score, tiles=job.request.tile, device=job.device
        )

    def compute(self, block: Block, progress: Callable[[int], None]) -> Callable[[], None]:
        """Find the objects of a block, unless its file is there; the function returned writes the file."""
        path = self.job.file(block.index)
        if path.exists() and not (self.job.retry_failed and any(isinstance(one, Failure) for one in _read(path))):
            progress(len(block.names))
            return lambda: None
        lines = []
        for name, image_id, pixels in zip(block.names, block.ids, self._images(block.names), strict=True):
            found = Failure(name, pixels) if isinstance(pixels, str) else self._labels(name, image_id, pixels)
            lines.append(_line(found))
            progress(1)
        return lambda: _write(path, lines)

    def _images(self, names: tuple[str, ...]) -> Iterator[NDArray[np.uint8] | str]:
        """The images' pixels, or why they cannot be read; a thread reads the next while one is used."""
        from stage1_proposals.images.decode import ImageError, read_image

        def read(name: str) -> NDArray[np.uint8] | str:
            try:
                return read_image(self.root / name)
            except ImageError as error:
                return str(error)

        with ThreadPoolExecutor(1) as pool:
            upcoming = pool.submit(read, names[0])
            for following in (*names[1:], None):
                pixels = upcoming.result()
                if following is not None:
                    upcoming = pool.submit(read, following)
                yield pixels

    def _labels(self, name: str, image_id: int, pixels: NDArray[np.uint8]) -> ImageLabels:
        found = self.predictor(pixels)
        return ImageLabels(
            image_id=image_id,
            file_name=name,
            size=found.size,
            counts=[rle["counts"] for rle in found.rle],
            scores=found.scores.tolist(),
            classes=found.labels.tolist(),
            boxes=to_xywh(found.boxes).tolist(),
        )


def _write(path: Path, lines: list[str]) -> None:
    with writing(path, GO_ON), atomic_write(path) as scratch:
        scratch.write_text("".join(lines), encoding="utf-8")


def _build_on_node(job: PredictionJob) -> BlockBuilder:
    """Prepare a Ray worker's process and make its builder; the node must see the images, the run and the output."""
    configure_process()
    keep_freed_memory()
    import torch

    torch.set_num_threads(1)
    for place in (Path(job.request.image_root), job.work_dir, job.folder):
        if not place.is_dir():
            raise UserError(f"on {socket.gethostname()}: no folder {place} on this node; each needs it at this path")
    return BlockBuilder(job)
