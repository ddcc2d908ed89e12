"""The images of a run, with their names and ids: from a folder, a COCO JSON or a text list."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np

from stage1_proposals.common.errors import UserError, quoted
from stage1_proposals.common.files import decode_text, encode_text
from stage1_proposals.common.image_paths import coco_roots, find_image, find_root, is_file_name
from stage1_proposals.images.recognition import EXTENSIONS, describe_passed_over, is_image
from stage1_proposals.shards import MANIFEST, Manifest, ShardError

# The encodings that begin with a byte order mark; Windows' tools write lists in both.
BYTE_ORDER_MARKS = {b"\xef\xbb\xbf": "utf-8", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}


@dataclass(frozen=True)
class ImageList:
    """The images of a run, in their one fixed order.

    Attributes:
        root: folder the names are relative to.
        names: relative paths with forward slashes, sorted, all different.
        ids: an int64 for each name, all different.
        remarks: what the user should know of the list, one line each.
    """

    root: Path
    names: tuple[str, ...]
    ids: tuple[int, ...]
    remarks: tuple[str, ...] = field(default=(), compare=False)

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


def image_ids(names: Sequence[str]) -> tuple[int, ...]:
    """Ids of images by their names: the file stem where it is a number that no other image has, else a hash."""
    stems = [Path(name).stem for name in names]
    numbers = [int(stem) if stem.isascii() and stem.isdigit() and len(stem) < 19 else None for stem in stems]
    uses = Counter(numbers)
    return tuple(
        number if number is not None and uses[number] == 1 else _hashed_id(name)
        for name, number in zip(names, numbers, strict=True)
    )


def _hashed_id(name: str) -> int:
    """A stable 63-bit id from the relative path."""
    return int.from_bytes(hashlib.sha256(encode_text(name)).digest()[:8], "big") >> 1


def list_images(
    source: str | Path, image_root: str | Path | None = None, exclude_dir: str | Path | None = None
) -> ImageList:
    """The images of a folder, of a COCO JSON (`*.json`), or of a text file with one path per line.

    Args:
        source: A folder is searched for images at any depth, told by their extension or their content; links are
            followed, hidden files and folders and the pictures beside a shard set are left out. A JSON's `images` give
            `file_name` and `id`, which is kept. The paths of a text file may end with zero bytes instead of newlines
            (`find -print0`). Such a file has no comments; empty lines are skipped.
        image_root: folder that the paths of a JSON or a text file are relative to. By default the file's own folder
            or, for a JSON, the one of `coco_roots` in which the first image is found.
        exclude_dir: folder whose own files are not listed, because the shards are written there.

    Raises:
        UserError: the folder or file does not exist, cannot be read or is `exclude_dir`; it has no images; none of the
            images exists; a path is absolute or has `..` in it; two images have the same path or id.
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
        names, others = _names_in_folder(source, exclude_dir)
        remark = describe_passed_over(others) if others else ""
        if not names:
            raise UserError(f"image folder {source}: no images in it{remark and f'; {remark}'}")
        return ImageList(source.resolve(), tuple(names), image_ids(names), (remark,) if remark else ())
    if source.suffix.lower() in EXTENSIONS or is_image(source):
        raise UserError(f"image folder {source}: is one image; name its folder, or a JSON or a list of images")
    if image_root is not None and not Path(image_root).is_dir():
        raise UserError(f"image root {image_root}: no such folder")
    if source.suffix.lower() == ".json":
        names, ids = _names_in_json(source)
        roots = coco_roots(source)
    else:
        names = _names_in_text(source)
        ids = image_ids(names)
        roots = [source.parent]
        _check_encoding(source, names, roots[0] if image_root is None else Path(image_root))
    root = find_root(source, roots if image_root is None else [Path(image_root)], names, "--image-root")
    # Paths of Windows, unless an image has such a name, and names that the disk may have in another Unicode form.
    if any("\\" in name or not name.isascii() for name in names):
        found = [find_image(root, name) or name for name in names]
        found = _normalised(source, ((quoted(name), path) for name, path in zip(names, found, strict=True)))
        names, ids = _sorted(found, ids if source.suffix.lower() == ".json" else image_ids(found))
    return ImageList(root.resolve(), tuple(names), ids)


def _names_in_folder(root: Path, exclude_dir: str | Path | None) -> tuple[list[str], list[str]]:
    """The paths of the images in a folder and those of its other files, each sorted."""
    shards = exclude_dir and os.path.realpath(exclude_dir)
    if shards == os.path.realpath(root):
        raise UserError(f"image folder {root}: the shards cannot lie among the images; choose another SHARDS directory")
    names: list[str] = []
    others: list[str] = []
    for folder, files in _folders(root):
        if os.path.realpath(folder) == shards:
            continue
        if folder != str(root) and MANIFEST in files and _holds_shards(folder):
            continue  # its pictures are contact sheets
        relative = Path(folder).relative_to(root)
        for name in files:
            if not name.startswith("."):
                found = Path(name).suffix.lower() in EXTENSIONS or is_image(os.path.join(folder, name))
                (names if found else others).append((relative / name).as_posix())
    return sorted(names), sorted(others)


def _folders(root: Path) -> Iterator[tuple[str, list[str]]]:
    """A folder and those in it, each once, links followed and hidden ones left out; with the names of their files.

    Raises:
        UserError: one cannot be read.
    """

    def refuse(error: OSError) -> None:
        raise UserError(f"image folder {error.filename}: cannot be read ({error.strerror})") from error

    visited: set[str] = set()
    for folder, subfolders, files in os.walk(root, onerror=refuse, followlinks=True):
        target = os.path.realpath(folder)
        if target in visited:  # a link may lead back
            subfolders.clear()
            continue
        visited.add(target)
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        yield folder, files


def _holds_shards(folder: str) -> bool:
    try:
        return Manifest.read(folder) is not None
    except ShardError:  # others write manifests, too
        return False


def _names_in_text(source: Path) -> list[str]:
    """The paths of a text file, sorted."""
    try:
        data = source.read_bytes()
    except OSError as error:
        raise UserError(f"{source}: cannot be read ({error.strerror})") from error
    mark, encoding = next(((mark, name) for mark, name in BYTE_ORDER_MARKS.items() if data.startswith(mark)), (b"", ""))
    if encoding == "utf-16":
        try:
            data = encode_text(data.decode(encoding))
        except UnicodeDecodeError as error:
            raise UserError(f"{source}: begins like UTF-16 but is not; save the list as UTF-8") from error
    else:
        data = data.removeprefix(mark)
    end = b"\0" if b"\0" in data else b"\n"
    entries = [entry.removesuffix(b"\r") if end == b"\n" else entry for entry in data.split(end)]
    numbered = ((f"line {number}", decode_text(entry)) for number, entry in enumerate(entries, 1) if entry)
    return sorted(_normalised(source, numbered))


def _check_encoding(source: Path, names: Sequence[str], root: Path) -> None:
    """Refuse a list in another encoding than the file names'; names on disk may be any bytes."""
    for name in names:
        if not _is_utf8(name) and not os.path.lexists(root / name):
            raise UserError(
                f"{source}: {quoted(name)} is not UTF-8, and {root} has no file of these bytes; save the list as UTF-8"
            )


def _names_in_json(source: Path) -> tuple[list[str], tuple[int, ...]]:
    """The paths of a COCO JSON, sorted, and their ids."""
    from stage1_proposals.common.coco import read_images  # only a JSON needs it

    images = read_images(source)
    names = _normalised(source, ((f"images[{row}]", image.file_name) for row, image in enumerate(images)))
    return _sorted(names, [int(image.id) for image in images])


def _sorted(names: Sequence[str], ids: Sequence[int]) -> tuple[list[str], tuple[int, ...]]:
    pairs = sorted(zip(names, ids, strict=True))
    return [name for name, _ in pairs], tuple(number for _, number in pairs)


def _normalised(source: Path, entries: Iterable[tuple[str, str]]) -> list[str]:
    """Paths as a folder's listing has them, without `./` and `//`, in the order of the entries (place, path).

    Raises:
        UserError: naming the first entry that is no path inside the image root, or that repeats another.
    """
    places: dict[str, str] = {}
    for place, entry in entries:
        path = PurePosixPath(entry)
        name = path.as_posix()
        if path.is_absolute():
            raise UserError(f"{source}: {place} is absolute ({quoted(entry)}); write paths relative to --image-root")
        if ".." in path.parts:
            raise UserError(f"{source}: {place} contains `..` ({quoted(entry)}); write paths inside --image-root")
        if not is_file_name(name):
            raise UserError(f"{source}: {place} is no file name ({quoted(entry)})")
        if name in places:
            raise UserError(f"{source}: {places[name]} and {place} are the same image ({quoted(name)}); name each once")
        places[name] = place
    if not places:
        raise UserError(f"{source}: no images in it")
    return list(places)


def _is_utf8(name: str) -> bool:
    try:
        return bool(name.encode())
    except UnicodeEncodeError:
        return False
