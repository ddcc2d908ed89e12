"""Finding the images that a file names: the folder of all of them, or one by its path."""

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TypeVar

from stage1_proposals.common.errors import UserError, quoted
from stage1_proposals.common.files import encode_text

T = TypeVar("T")

URL = re.compile(r"([A-Za-z][\w+.-]+):/+")  # with one slash in a path that was normalised; a drive has one letter


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


def unicode_forms(path: str) -> list[str]:
    """A path as given and in Unicode's normal forms: macOS may write an accented letter as two characters."""
    return list(dict.fromkeys([path, *(unicodedata.normalize(form, path) for form in ("NFC", "NFD"))]))


def find_image(root: Path, path: str, ambiguous: Set[str] | None = None) -> str | None:
    """The path by which a folder has an image that another file names; None: it has not.

    It is the path as given; else with slashes, if it is one of Windows; else, if it is absolute or leads out of the
    folder, the file name. Each may be in another Unicode normal form.

    Args:
        ambiguous: names that several of the file's paths have, see `repeated_names`; an image of another name is found
            by it, whatever its path is. None: only those above are.
    """
    portable = portable_path(path)
    name = PurePosixPath(portable).name
    paths = [path, portable]
    leads_out = portable.startswith(("/", "../")) or PureWindowsPath(path).drive
    if leads_out or (ambiguous is not None and name not in ambiguous):
        paths.append(name)
    places = (form for place in dict.fromkeys(paths) for form in unicode_forms(place))
    return next((place for place in places if os.path.exists(os.path.join(root, place))), None)


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
    folders = [path.parent, path.absolute().parent.parent]
    return [folder / part for folder in folders for part in ("", *_image_folders(path))]


def _image_folders(path: Path) -> tuple[str, str, str]:
    subset = path.stem.rpartition("_")[2]
    return subset, "images", f"images/{subset}"


def find_root(
    path: Path, roots: Sequence[Path], names: Sequence[str], option: str, ambiguous: Set[str] | None = None
) -> Path:
    """The first folder that has the first image that exists.

    Args:
        path: the file that names the images.
        roots: folders to look in: one, or those of `coco_roots`.
        names: the images' paths in the folder.
        option: which option says where they are.
        ambiguous: as in `find_image`.

    Raises:
        UserError: there are no images, or none of them exists.
    """
    if not names:
        raise UserError(f"{path}: names no images")
    for name in names:  # the outer loop, so that a folder without any of them costs next to nothing
        for root in roots:
            if find_image(root, name, ambiguous) is not None:
                return root
    where = str(roots[0])
    if len(roots) > 1:
        subset, images, images_of_subset = _image_folders(path)
        where += f" or the folder above it, nor in `{subset}/`, `{images}/` or `{images_of_subset}/` of either"
    download = "; images are not downloaded" if URL.match(names[0]) else ""
    first = URL.sub(r"\1://", names[0], count=1) if download else names[0]
    raise UserError(
        f"{path}: none of its {len(names)} images is under {where}{download}; say where they are with {option}; "
        f"the first is {quoted(first)}"
    )
