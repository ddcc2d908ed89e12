"""Finding the images that a file names: the folder of all of them, or one by its path."""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TypeVar

from stage1_proposals.common.errors import UserError, quoted
from stage1_proposals.common.files import encode_text

T = TypeVar("T")


def is_file_name(path: str) -> bool:
    """Whether text can be the path of a file; JSON can hold half of a surrogate pair, which no file system can."""
    if PurePosixPath(path).as_posix() == "." or "\0" in path:
        return False
    try:
        return bool(encode_text(path))
    except UnicodeEncodeError:
        return False


def portable_path(path: str) -> str:
    """A path, perhaps of Windows, with slashes and without `./` and `//`."""
    return PurePosixPath(path.replace("\\", "/")).as_posix()


def find_image(root: Path, path: str) -> str | None:
    """The path by which a folder has an image that another file names; None: it has not.

    It is the path as given; else with slashes, if it is one of Windows; else, if it is absolute or leads out of the
    folder, the file name.
    """
    portable = portable_path(path)
    paths = [path, portable]
    if portable.startswith(("/", "../")) or PureWindowsPath(path).drive:
        paths.append(PurePosixPath(portable).name)
    return next((place for place in dict.fromkeys(paths) if os.path.exists(os.path.join(root, place))), None)


def repeated_names(paths: Iterable[str]) -> frozenset[str]:
    """The file names that several paths have."""
    uses = Counter(PurePosixPath(portable_path(path)).name for path in paths)
    return frozenset(name for name, count in uses.items() if count > 1)


def image_finder(images: Mapping[str, T], ambiguous: Set[str] = frozenset()) -> Callable[[str], T | None]:
    """How to find images, known by their paths, for the paths of another file.

    An image is found by the same path or, where just one path on each side has it, by its file name.

    Args:
        ambiguous: file names that several of the other file's paths have; see `repeated_names`.
    """
    by_path = {portable_path(path): image for path, image in images.items()}
    repeated = repeated_names(by_path) | ambiguous
    by_name = {name: image for path, image in by_path.items() if (name := PurePosixPath(path).name) not in repeated}

    def find(path: str) -> T | None:
        path = portable_path(path)
        name = PurePosixPath(path).name
        return by_path[path] if path in by_path else None if name in ambiguous else by_name.get(name)

    return find


def coco_roots(path: Path) -> list[Path]:
    """Where a COCO JSON's images may be: beside it or one folder up, there or in a folder for them.

    In COCO's own layout, `annotations/image_info_unlabeled2017.json` has its images in `unlabeled2017/`; in CVAT's,
    `annotations/instances_default.json` has them in `images/default/`.
    """
    folders, subset = [path.parent, path.absolute().parent.parent], path.stem.rpartition("_")[2]
    return [folder / part for folder in folders for part in ("", subset, "images", f"images/{subset}")]


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
            if find_image(root, name) is not None:
                return root
    folders = " or ".join(map(str, roots))
    raise UserError(
        f"{path}: none of its {len(names)} images is under {folders}; say where they are with {option}; "
        f"the first is {quoted(names[0])}"
    )
