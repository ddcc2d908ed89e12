"""Which images there are, under which names and ids: from a folder, a COCO JSON, or a text list."""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import numpy as np

from stage1_proposals.common.errors import UserError
from stage1_proposals.shards import MANIFEST, Manifest, ShardError
from stage1_proposals.shards.schema import decode_text, encode_text

EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".jp2"})
T = TypeVar("T")
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class ImageList:
    """The images of a run, in their one fixed order.

    Attributes:
        root: folder the names are relative to.
        names: relative paths with forward slashes, sorted, no two equal.
        ids: one int64 per name, no two equal.
    """

    root: Path
    names: tuple[str, ...]
    ids: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.names)

    def sha256(self) -> str:
        """Hash of the names in order, and of the ids where they do not follow from the names."""
        digest = hashlib.sha256()
        for name in self.names:
            digest.update(encode_text(name) + b"\0")
        if self.ids != image_ids(self.names):
            digest.update(np.array(self.ids, "<i8").tobytes())
        return digest.hexdigest()


def _hashed_id(name: str) -> int:
    """A stable 63-bit id from the relative path."""
    return int.from_bytes(hashlib.sha256(encode_text(name)).digest()[:8], "big") >> 1


def image_ids(names: Sequence[str]) -> tuple[int, ...]:
    """The COCO id where the file stem is a number, else a hash of the path; a number used twice is hashed, too."""
    stems = [Path(name).stem for name in names]
    numbers = [int(stem) if stem.isascii() and stem.isdigit() and len(stem) < 19 else None for stem in stems]
    uses = Counter(numbers)
    return tuple(
        number if number is not None and uses[number] == 1 else _hashed_id(name)
        for name, number in zip(names, numbers, strict=True)
    )


def finder(images: Mapping[str, T]) -> Callable[[str], T | None]:
    """How to find images, known by their paths, for others' paths: the same path or, where just one has it, name."""
    uses = Counter(PurePosixPath(path).name for path in images)
    by_name = {name: image for path, image in images.items() if uses[name := PurePosixPath(path).name] == 1}

    def find(path: str) -> T | None:
        return images[path] if path in images else by_name.get(PurePosixPath(path).name)

    return find


def list_images(
    source: str | Path, image_root: str | Path | None = None, leave_out: str | Path | None = None
) -> ImageList:
    """The images of a folder, of a COCO JSON (`*.json`), or of a text file with one path per line.

    Args:
        source: a folder is searched for images by extension, at any depth, links followed; hidden files and folders
            are left out, and so are the pictures beside a shard set. A JSON's `images[]` give `file_name` and `id`,
            which is kept. In a text file, paths may end with zero bytes instead of newlines (`find -print0`); then
            they are taken to the letter. There are no comments, and empty lines are passed over.
        image_root: folder that the paths of a JSON or a text file are relative to. By default the file's own folder
            or, for a JSON, the one of `coco_roots` that has the first image found.
        leave_out: folder, the shards', whose own files are not listed.

    Raises:
        UserError: no such folder or file, or one that cannot be read, or is `leave_out`; no images in it; none of them
            is there; a path that is absolute or has `..` in it; a path or an id twice.
    """
    source = Path(source)
    try:
        source.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(f"image folder {source}: no such folder, nor a JSON or a list of images") from error
    except OSError as error:
        raise UserError(f"image folder {source}: cannot be reached ({error.strerror})") from error
    if source.is_dir():
        if image_root is not None:
            raise UserError(f"image folder {source}: --image-root {image_root} goes with a JSON or a list of images")
        return _of_folder(source, leave_out)
    if source.suffix.lower() in EXTENSIONS:
        raise UserError(f"image folder {source}: is one image; name its folder, or a JSON or a list of images")
    if image_root is not None and not Path(image_root).is_dir():
        raise UserError(f"image root {image_root}: no such folder")
    if source.suffix.lower() == ".json":
        names, ids = _of_json(source)
        roots = coco_roots(source)
    else:
        names = _of_text(source)
        ids = image_ids(names)
        roots = [source.parent]
    if image_root is not None:
        roots = [Path(image_root)]
    return ImageList(_root_with_images(source, roots, names).resolve(), tuple(names), ids)


def _of_folder(root: Path, leave_out: str | Path | None) -> ImageList:
    def refuse(error: OSError) -> None:
        raise UserError(f"image folder {error.filename}: cannot be read ({error.strerror})") from error

    shards = leave_out and os.path.realpath(leave_out)
    if shards == os.path.realpath(root):
        raise UserError(f"image folder {root}: the shards cannot lie among the images; choose another SHARDS directory")
    names = []
    visited: set[str] = set()
    for folder, subfolders, files in os.walk(root, onerror=refuse, followlinks=True):
        real = os.path.realpath(folder)
        if real in visited:  # a link back into what is listed already
            subfolders.clear()
            continue
        visited.add(real)
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        if real == shards or (folder != str(root) and MANIFEST in files and _holds_shards(folder)):
            continue  # its pictures are contact sheets
        relative = Path(folder).relative_to(root)
        names += [
            (relative / name).as_posix()
            for name in files
            if not name.startswith(".") and Path(name).suffix.lower() in EXTENSIONS
        ]
    if not names:
        raise UserError(f"image folder {root}: no images in it (looked for {' '.join(sorted(EXTENSIONS))})")
    names.sort()
    return ImageList(root.resolve(), tuple(names), image_ids(names))


def _holds_shards(folder: str) -> bool:
    try:
        return Manifest.read(folder) is not None
    except ShardError:  # others write manifests, too
        return False


def _read(source: Path) -> bytes:
    try:
        return source.read_bytes()
    except OSError as error:
        raise UserError(f"{source}: cannot be read ({error.strerror})") from error


def _of_text(source: Path) -> list[str]:
    """The paths of a text file, sorted."""
    data = _read(source)
    if b"\0" in data:
        entries = data.split(b"\0")
    else:
        entries = [line.removesuffix(b"\r") for line in data.removeprefix(BYTE_ORDER_MARK).split(b"\n")]
    numbered = ((f"line {number}", decode_text(entry)) for number, entry in enumerate(entries, 1) if entry)
    return sorted(_clean_names(source, numbered))


def _of_json(source: Path) -> tuple[list[str], tuple[int, ...]]:
    """The paths of a COCO JSON, sorted, and their ids."""

    def reduce(item: dict[str, Any]) -> Any:
        # Called as each object is parsed, so a file of annotations never stands in memory as a whole.
        return item if "images" in item else (item.get("file_name"), item.get("id"))

    try:
        document = json.loads(_read(source), object_hook=reduce)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{source}: not JSON ({error})") from error
    if not isinstance(document, dict) or not isinstance(document["images"], list):
        raise UserError(f"{source}: not COCO JSON, it has no list `images`")
    ids: dict[int, int] = {}
    for row, entry in enumerate(document["images"]):
        if not isinstance(entry, tuple) or not isinstance(entry[0], str):
            raise UserError(f"{source}: images[{row}] has no `file_name`")
        number = entry[1]
        if type(number) is not int or not -(2**63) <= number < 2**63:
            raise UserError(f"{source}: images[{row}] ({_shown(entry[0])}) needs a whole number of 64 bits as `id`")
        if number in ids:
            raise UserError(f"{source}: images[{ids[number]}] and images[{row}] have the same id {number}")
        ids[number] = row
    names = _clean_names(source, ((f"images[{row}]", entry[0]) for row, entry in enumerate(document["images"])))
    pairs = sorted(zip(names, ids, strict=True))
    return [name for name, _ in pairs], tuple(number for _, number in pairs)


def _shown(name: str) -> str:
    """A path as a message can hold it: on one line, and not endless."""
    return repr(name) if len(name) <= 200 else f"{name[:200]!r}..."


def _clean_names(source: Path, entries: Iterable[tuple[str, str]]) -> list[str]:
    """Paths as a folder would give them, without `./` and `//`, in the order of the entries (place, path).

    Raises:
        UserError: naming the first entry that is no path inside the image root, or is there already.
    """
    places: dict[str, str] = {}
    for place, entry in entries:
        path = PurePosixPath(entry)
        name = path.as_posix()
        if path.is_absolute():
            raise UserError(f"{source}: {place} is absolute ({_shown(entry)}); write paths relative to --image-root")
        if ".." in path.parts:
            raise UserError(f"{source}: {place} climbs with `..` ({_shown(entry)}); write paths inside --image-root")
        if name == "." or "\0" in name or not _is_file_name(name):
            raise UserError(f"{source}: {place} is no file name ({_shown(entry)})")
        if name in places:
            raise UserError(f"{source}: {places[name]} and {place} are the same image ({_shown(name)}); name each once")
        places[name] = place
    if not places:
        raise UserError(f"{source}: no images in it")
    return list(places)


def _is_file_name(name: str) -> bool:
    try:
        return bool(encode_text(name))
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can hold and no file system
        return False


def coco_roots(source: Path) -> list[Path]:
    """Where a COCO JSON's images may be: beside it or one folder up, there or in a folder for them.

    In COCO's own layout, `annotations/image_info_unlabeled2017.json` has its images in `unlabeled2017/`.
    """
    folders = [source.parent, source.absolute().parent.parent]
    return [folder / part for folder in folders for part in ("", source.stem.rpartition("_")[2], "images")]


def _root_with_images(source: Path, roots: Sequence[Path], names: Sequence[str]) -> Path:
    """The folder of the first image that is there.

    Raises:
        UserError: none is.
    """
    for name in names:  # the outer loop, so that a folder without any of them costs next to nothing
        for root in roots:
            if os.path.exists(os.path.join(root, name)):
                return root
    raise UserError(
        f"{source}: none of its {len(names)} images is under {' or '.join(map(str, roots))}; "
        f"say where they are with --image-root"
    )
