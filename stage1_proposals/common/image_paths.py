"""Finding the images that a file names: the folder of all of them, or one by its path."""

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TypeVar

from stage1_proposals.common.errors import UserError, quoted

T = TypeVar("T")


def image_finder(images: Mapping[str, T]) -> Callable[[str], T | None]:
    """How to find images, known by their paths, for the paths of another file.

    An image is found by the same path or, where just one image has it, by its file name.
    """
    uses = Counter(PurePosixPath(path).name for path in images)
    by_name = {name: image for path, image in images.items() if uses[name := PurePosixPath(path).name] == 1}

    def find(path: str) -> T | None:
        return images[path] if path in images else by_name.get(PurePosixPath(path).name)

    return find


def coco_roots(path: Path) -> list[Path]:
    """Where a COCO JSON's images may be: beside it or one folder up, there or in a folder for them.

    In COCO's own layout, `annotations/image_info_unlabeled2017.json` has its images in `unlabeled2017/`.
    """
    folders = [path.parent, path.absolute().parent.parent]
    return [folder / part for folder in folders for part in ("", path.stem.rpartition("_")[2], "images")]


def find_root(path: Path, roots: Sequence[Path], names: Sequence[str], option: str) -> Path:
    """The first folder that has the first image that exists.

    Args:
        path: the file that names the images.
        roots: folders to look in.
        names: the images' paths in the folder.
        option: which option says where they are.

    Raises:
        UserError: there are no images, or none of them exists.
    """
    if not names:
        raise UserError(f"{path}: names no images")
    for name in names:  # the outer loop, so that a folder without any of them costs next to nothing
        for root in roots:
            if os.path.exists(os.path.join(root, name)):
                return root
    folders = " or ".join(map(str, roots))
    raise UserError(
        f"{path}: none of its {len(names)} images is under {folders}; say where they are with {option} "
        f"(the first is {quoted(names[0])})"
    )
