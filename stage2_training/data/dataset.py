"""The dataset that streams pseudo labels from shards; it holds nothing per image."""

import os
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from mmdet.registry import DATASETS
from mmengine.dataset import BaseDataset

from stage1_proposals.common.errors import UserError
from stage1_proposals.shards import ShardError, ShardReader, ShardSet

CLUSTER_NAME = "cluster"  # pseudo classes are called `cluster 0`, `cluster 1`, ...


@DATASETS.register_module()
class PseudoLabelDataset(BaseDataset):
    """Images and their pseudo masks, class-agnostic (one class, `object`) or with the shards' clusters as classes.

    The manifest gives the number of images in each shard, and that is all that is kept in memory. Shards are
    opened when first read from, in the process that reads, and then read ahead whole: `ShardSampler` is about to ask
    for all of their images. Images without proposals are part of the dataset.

    Args:
        shards: directory of a finished shard set.
        pipeline: transforms, from `LoadRGBImage` and `LoadPseudoLabels` to `PackPseudoLabels`.
        image_root: where the images are now, when not where stage 1 found them.
        max_open_shards: files held open per process, some 4 MB each; the one unused longest is closed first.
            `ShardSampler` mixes the images of no more shards than these.
        pseudo_classes: clusters are the classes, `cluster 0` and so on.

    Raises:
        ShardError: no shard set, an unfinished one, or a shard file is missing; with `pseudo_classes`, the set has no
            clusters, or not in every shard.
    """

    METAINFO: ClassVar[dict[str, Any]] = {"classes": ("object",), "palette": [(220, 20, 60)]}

    def __init__(
        self,
        shards: str,
        pipeline: Sequence[dict[str, Any]] = (),
        image_root: str | None = None,
        max_open_shards: int = 16,
        pseudo_classes: bool = False,
        **kwargs: Any,
    ) -> None:
        if kwargs.get("indices") is not None:
            raise UserError("dataset.indices: shards are taken whole; for fewer images, make shards of a list of them")
        self.shards = ShardSet.open(shards)
        self.image_root = Path(image_root or self.shards.image_root)
        self.max_open_shards = max_open_shards
        self.clusters = self.shards.clusters() if pseudo_classes else None
        self._readers: OrderedDict[int, ShardReader] = OrderedDict()
        self._pid = os.getpid()
        if self.clusters is not None:
            names = tuple(f"{CLUSTER_NAME} {number}" for number in range(self.clusters["classes"]))
            kwargs["metainfo"] = {"classes": names, "palette": self.METAINFO["palette"] * len(names)}
        super().__init__(pipeline=list(pipeline), **kwargs)

    def full_init(self) -> None:
        """Nothing is loaded at start."""
        self._fully_initialized = True

    def __len__(self) -> int:
        return self.shards.image_count

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_readers": OrderedDict()}

    def get_data_info(self, idx: int) -> dict[str, Any]:
        """What the pipeline starts from: the image's path, id and size, its `ImageRecord` and its proposals' classes.

        Raises:
            ShardError: the shard is damaged, has gone, or was exchanged or clustered anew since the start.
        """
        idx = range(len(self))[idx]
        shard, row = self.shards.locate(idx)
        record = self._reader(shard).read(row)
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

    def _reader(self, shard: int) -> ShardReader:
        if self._pid != os.getpid():  # a forked worker must not share its parent's file positions
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
