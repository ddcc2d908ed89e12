"""Reference: a shard's record as one would read it with h5py and pycocotools, column by column."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from pycocotools import mask as coco_mask

_open_files: dict[Path, h5py.File] = {}


def plain_read(path: Path, index: int) -> dict[str, Any]:
    """The columns of image `index` by name; `masks` uint8 (L, H, W). The file stays open."""
    if path not in _open_files:
        _open_files[path] = h5py.File(path, "r")
    file = _open_files[path]
    first, last = (int(row) for row in file["images/proposals_begin"][index : index + 2])
    begin = file["proposals/rle_begin"][first : last + 1]
    size = [int(file["images/height"][index]), int(file["images/width"][index])]
    counts = file["proposals/rle"][begin[0] : begin[-1]].tobytes()
    rle = [{"size": size, "counts": counts[a:b]} for a, b in pairwise((begin - begin[0]).tolist())]
    columns = {name: file[f"proposals/{name}"][first:last] for name in ("bbox", "score", "area", "seed", "feature")}
    name = file["images/file_name"][index].decode()
    masks = np.ascontiguousarray(coco_mask.decode(rle).transpose(2, 0, 1))
    return {"img_id": int(file["images/id"][index]), "file_name": name, "masks": masks, **columns}
