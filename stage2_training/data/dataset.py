"""The dataset that streams pseudo labels from shards. It keeps nothing per image in memory."""

import os
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import numpy as np
from mmdet.registry import DATASETS
from mmengine.dataset import BaseDataset

from stage1_proposals.common.errors import UserError
from stage1_proposals.shards import ImageRecord, ShardError, ShardReader, ShardSet

CLUSTER_NAME = "cluster"  # pseudo classes are called `cluster 0`, `cluster 1`, ...
Choice = Literal["best", "random"]


@DATASETS.register_module()
class PseudoLabelDataset(BaseDataset):
    """Images with their pseudo masks, class-agnostic (one class, `object`) or with the shards' clusters as classes.

    Only the number of images in each shard, from the manifest, is kept in memory. A shard is opened on first use, in
    the process that uses it, and then read ahead whole, because `ShardSampler` will request all of its images. Images
    without proposals are part of the dataset.

    Args:
        shards: directory of a complete shard set.
        pipeline: transforms, from `LoadRGBImage` and `LoadPseudoLabels` to `PackPseudoLabels`.
        image_root: folder of the images, if they have moved since stage 1.
        max_open_shards: files open at a time per process, about 4 MB each; the least recently used is closed first.
            `ShardSampler` mixes the images of at most as many shards.
        pseudo_classes: use the clusters as classes, `cluster 0` and so on.
        max_proposals: most proposals of an image; None: all.
        choose: which of more: the `best`-scored (DETReg's top 30), or other ones each time, at `random` (UP-DETR's
            patches).

    Raises:
        ShardError: no shard set, an incomplete one, or a missing shard file; with `pseudo_classes`, a set without
            clusters or with clusters in some shards only.
        UserError: `indices` is given, or an unknown choice or number of proposals.
    """

    METAINFO: ClassVar[dict[str, Any]] = {"classes": ("object",), "palette": [(220, 20, 60)]}

    def __init__(
        self,
        shards: str,
        pipeline: Sequence[dict[str, Any]] = (),
        image_root: str | None = None,
        max_open_shards: int = 16,
        pseudo_classes: bool = False,
        max_proposals: int | None = None,
        choose: Choice = "best",
        **kwargs: Any,
    ) -> None:
        if kwargs.get("indices") is not None:
            raise UserError("dataset.indices: shards are taken whole; for fewer images, make shards of a list of them")
        if choose not in get_args(Choice):
            raise UserError(f"dataset.choose {choose!r}: use {' or '.join(get_args(Choice))}")
        if max_proposals is not None and max_proposals < 1:
            raise UserError(f"dataset.max_proposals {max_proposals}: use 1 or more, or None for all")
        self.shards = ShardSet.open(shards)
        self.image_root = Path(image_root or self.shards.image_root)
        self.max_open_shards = max_open_shards
        self.max_proposals, self.choose = max_proposals, choose
        self.clusters = self.shards.clusters() if pseudo_classes else None
        self._readers: OrderedDict[int, ShardReader] = OrderedDict()
        self._pid = os.getpid()
        if self.clusters is not None:
            names = tuple(f"{CLUSTER_NAME} {number}" for number in range(self.clusters.classes))
            kwargs["metainfo"] = {"classes": names, "palette": self.METAINFO["palette"] * len(names)}
        super().__init__(pipeline=list(pipeline), **kwargs)

    def full_init(self) -> None:
        """Load nothing: shards are read on demand."""
        self._fully_initialized = True

    def __len__(self) -> int:
        return self.shards.image_count

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_readers": OrderedDict()}

    def get_data_info(self, idx: int) -> dict[str, Any]:
        """The pipeline's input: the image's path, id and size, its `ImageRecord` and its proposals' classes.

        Raises:
            ShardError: the shard is damaged or missing, or was replaced or clustered anew since training began.
        """
        idx = range(len(self))[idx]
        shard, row = self.shards.locate(idx)
        record = self._choose(self._reader(shard).read(row))
        return {
            "img_id": record.image_id,
            "img_path": str(self.image_root / record.file_name),
            "height": record.height,
            "width": record.width,
            "sample_idx": idx,
            "record": record,
            "labels": np.zeros(len(record), np.int64)
            if self.clusters is None
            else np.asarray(record.cluster, np.int64),
        }

    def _choose(self, record: ImageRecord) -> ImageRecord:
        """An image with `max_proposals` of its proposals at most."""
        if self.max_proposals is None or len(record) <= self.max_proposals:
            return record
        ranks = np.random.random(len(record)) if self.choose == "random" else -record.score
        return record.take(ranks.argsort(kind="stable")[: self.max_proposals])

    def _reader(self, shard: int) -> ShardReader:
        if self._pid != os.getpid():  # a forked worker must not share its parent's open files
            self._readers, self._pid = OrderedDict(), os.getpid()
        if shard not in self._readers:
            if len(self._readers) >= self.max_open_shards:
                self._readers.popitem(last=False)[1].close()
            reader = self.shards.reader(shard)
            reader.read_ahead()
            if self.clusters is not None and reader.clusters != self.clusters:
                raise ShardError(
                    f"{reader.path}: not clustered as when training began; run the same `make cluster` again"
                )
            self._readers[shard] = reader
        self._readers.move_to_end(shard)
        return self._readers[shard]
