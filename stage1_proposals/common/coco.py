"""COCO JSON: one reader for image lists, imported masks, labels and evaluation; masks, run lengths and boxes.

Each rule for such files is defined here once, with its message. Contents are checked as far as they are used: images
and ids when the file is read, an object when it is accessed, its mask when it is converted to run lengths.
"""

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from sys import float_info
from typing import Any, TypeGuard, TypeVar

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from stage1_proposals.common.errors import UserError

T = TypeVar("T")
Size = tuple[int, int]  # height, width in pixels
Rle = dict[str, Any]  # COCO's compressed run lengths: `size` [height, width] and `counts`, bytes
ImageId = int | str

ADVICE = "correct the file"
MAX_COORDINATE = 100_000  # no image is this large; rasterising such a polygon would take all memory
IMAGE_KEYS = ("id", "file_name", "height", "width")


class AnnotationError(UserError):
    """One object of a file is malformed; the others can be used.

    Attributes:
        what: what is wrong and where, without advice.
    """

    def __init__(self, what: str) -> None:
        super().__init__(f"{what}; {ADVICE}")
        self.what = what


@dataclass(frozen=True, slots=True)
class CocoImage:
    """An entry of `images`; its size is None where the file does not state both height and width."""

    id: ImageId
    file_name: str
    size: Size | None = None


@dataclass(frozen=True, slots=True)
class CocoAnnotation:
    """An object as the file states it.

    Attributes:
        where: file and position, for messages.
        category_id: None where it is no whole number.
        segmentation: polygons or run lengths, unchecked; see `rle`.
        bbox: x, y, width and height in pixels; None where the file does not state four numbers.
        area: None where the file does not state a number.
        score: None where the file states none.
    """

    where: str
    image_id: ImageId
    category_id: int | None
    segmentation: Any
    iscrowd: bool
    bbox: list[float] | None
    area: float | None
    score: float | None

    def rle(self, size: Size) -> Rle:
        """The mask.

        Raises:
            AnnotationError: it is neither polygons nor run lengths of an image of this size.
        """
        try:
            return to_rle(self.segmentation, size)
        except ValueError as error:
            what = f"{self.where} has no `segmentation` that is polygons or run lengths of its image: {error}"
            raise AnnotationError(what) from error


@dataclass(frozen=True)
class CocoDocument:
    """A COCO instance JSON.

    Attributes:
        images: in the file's order.
        categories: names by id, in the file's order.
        rows: for each image, the positions of its objects in the file's list.
        content: the file's lists as they stand in it, for those who copy parts of them.
    """

    path: Path
    images: tuple[CocoImage, ...]
    categories: Mapping[int, str]
    rows: Mapping[ImageId, Sequence[int]]
    content: Mapping[str, list[Any]]

    def annotation(self, row: int) -> CocoAnnotation:
        """The object at a position of the file's list.

        Raises:
            AnnotationError: it is malformed.
        """
        return _annotation(f"{self.path}: annotations[{row}]", self.content["annotations"][row])

    def annotations(self) -> Iterator[CocoAnnotation]:
        """The objects of the document's images, in the file's order.

        Raises:
            AnnotationError: one is malformed.
        """
        for row, entry in enumerate(self.content["annotations"]):
            if entry["image_id"] in self.rows:
                yield self.annotation(row)


def read_coco(
    path: str | Path, *, categories: bool = True, ignore_unknown_images: bool = False, text_ids: bool = False
) -> CocoDocument:
    """Read a COCO instance JSON.

    Args:
        categories: whether the file must have categories; if not, they are not read.
        ignore_unknown_images: leave out objects of images that the file does not list, instead of refusing them.
        text_ids: allow ids of images to be text, too.

    Raises:
        UserError: it cannot be read, is not COCO JSON, or two images or categories have the same id or name.
    """
    path = Path(path)
    return _document(path, _load(path), categories, ignore_unknown_images, text_ids)


def read_masks(path: str | Path) -> tuple[tuple[CocoImage, ...] | None, Iterator[CocoAnnotation]]:
    """Read masks that another program has made: a COCO JSON with or without categories, or a list of results.

    Returns:
        the images, or None for a list of results, which is annotations alone; and the annotations of these images.

    Raises:
        UserError: it cannot be read or is neither; as the annotations are read, one is malformed.
    """
    path = Path(path)
    document = _load(path)
    if isinstance(document, list):
        return None, (_annotation(f"{path}: results[{row}]", entry) for row, entry in enumerate(document))
    data_set = _document(path, document, categories=False, ignore_unknown_images=True, text_ids=True)
    return data_set.images, data_set.annotations()


def read_images(path: str | Path) -> tuple[CocoImage, ...]:
    """Read `images` of a COCO JSON alone; a large file of annotations never stands in memory as a whole.

    Raises:
        UserError: it cannot be read, is not COCO JSON, or two images have the same id.
    """
    path = Path(path)

    def keep_images(item: dict[str, Any]) -> Any:  # called as each object is parsed
        if "images" in item:
            return item
        return {key: item[key] for key in IMAGE_KEYS if key in item} if "file_name" in item else None

    return _images(path, _list(path, _load(path, keep_images), "images"), text_ids=False)


def _load(path: Path, object_hook: Callable[[dict[str, Any]], Any] | None = None) -> Any:
    try:
        return json.loads(path.read_bytes(), object_hook=object_hook)  # bytes may begin with a byte order mark
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON ({error})") from error


def _document(path: Path, document: Any, categories: bool, ignore_unknown_images: bool, text_ids: bool) -> CocoDocument:
    if isinstance(document, dict) and "shapes" in document:
        raise UserError(
            f"{path}: is a labelme file, which labels one image; to use such labels, name the folder of all of them"
        )
    parts = ("images", "annotations", *(["categories"] if categories else []))
    content = {part: _list(path, document, part) for part in parts}
    names = _categories(path, content["categories"]) if categories else {}
    images = _images(path, content["images"], text_ids)
    rows: dict[ImageId, list[int]] = {image.id: [] for image in images}
    for row, entry in enumerate(content["annotations"]):
        image_id = _image_id(f"{path}: annotations[{row}]", entry)
        if image_id in rows:
            rows[image_id].append(row)
        elif not ignore_unknown_images:
            raise UserError(f"{path}: annotations[{row}] has no `image_id` that is in its images; {ADVICE}")
    return CocoDocument(path, images, names, rows, content)


def _list(path: Path, document: Any, key: str) -> list[Any]:
    if not isinstance(document, dict) or not isinstance(document.get(key), list):
        raise UserError(f"{path}: not COCO JSON, it has no list `{key}`")
    return document[key]


def _images(path: Path, entries: list[Any], text_ids: bool) -> tuple[CocoImage, ...]:
    images = [_image(f"{path}: images[{row}]", entry, text_ids) for row, entry in enumerate(entries)]
    _check_unique(path, "images", "id", [image.id for image in images])
    return tuple(images)


def _image(where: str, entry: Any, text_ids: bool) -> CocoImage:
    name = _text(where, entry, "file_name")
    where = f"{where} ({quoted(name)})"
    number = entry.get("id")
    if not (_is_int64(number) or (text_ids and isinstance(number, str))):
        raise UserError(f"{where} needs a whole number of 64 bits as `id`; {ADVICE}")
    height, width = (_side(where, entry, key) for key in ("height", "width"))
    return CocoImage(number, name, None if height is None or width is None else (height, width))


def _side(where: str, entry: Mapping[str, Any], key: str) -> int | None:
    value = entry.get(key)
    if value is None:
        return None
    if not _is_number(value) or value != int(value):
        kind = "text" if isinstance(value, str) else "no whole number"
        raise UserError(f"{where} has a `{key}` that is {kind} ({quoted(str(value))}); {ADVICE}")
    return int(value)


def _categories(path: Path, entries: list[Any]) -> dict[int, str]:
    names = [_text(f"{path}: categories[{row}]", entry, "name") for row, entry in enumerate(entries)]
    for row, entry in enumerate(entries):
        if not _is_int64(entry.get("id")):
            raise UserError(f"{path}: categories[{row}] ({quoted(names[row])}) needs a whole number as `id`; {ADVICE}")
    ids = [entry["id"] for entry in entries]
    _check_unique(path, "categories", "id", ids)
    _check_unique(path, "categories", "name", names)
    return dict(zip(ids, names, strict=True))


def _annotation(where: str, entry: Any) -> CocoAnnotation:
    image_id = _image_id(where, entry)
    category_id, box, area, score = (entry.get(key) for key in ("category_id", "bbox", "area", "score"))
    crowd = entry.get("iscrowd", 0)
    if not isinstance(crowd, int | float) or crowd not in (0, 1):
        raise AnnotationError(f"{where} has an `iscrowd` that is neither 0 nor 1 ({quoted(str(crowd))})")
    if score is not None and not _is_number(score):
        raise AnnotationError(f"{where} has a `score` that is no number ({quoted(str(score))})")
    return CocoAnnotation(
        where,
        image_id,
        category_id if _is_int64(category_id) else None,
        entry.get("segmentation"),
        bool(crowd),
        box if isinstance(box, list) and len(box) == 4 and all(map(_is_number, box)) else None,
        area if _is_number(area) else None,
        None if score is None else float(score),
    )


def _image_id(where: str, entry: Any) -> ImageId:
    image_id = entry.get("image_id") if isinstance(entry, dict) else None
    if not _is_int64(image_id) and not isinstance(image_id, str):
        raise UserError(f"{where} has no `image_id`; {ADVICE}")
    return image_id


def _text(where: str, entry: Any, key: str) -> str:
    text = entry.get(key) if isinstance(entry, dict) else None
    if not isinstance(text, str):
        raise UserError(f"{where} needs a text as `{key}`; {ADVICE}")
    return text


def _check_unique(path: Path, part: str, key: str, values: Sequence[Any]) -> None:
    rows: dict[Any, int] = {}
    for row, value in enumerate(values):
        first = rows.setdefault(value, row)
        if first != row:
            raise UserError(f"{path}: {part}[{first}] and {part}[{row}] have the same {key} {value!r}; {ADVICE}")


def _is_int64(value: Any) -> TypeGuard[int]:
    return type(value) is int and -(2**63) <= value < 2**63


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= float_info.max


def quoted(text: str) -> str:
    """Text as a message can hold it: in quotes, on one line, of at most 200 characters."""
    return repr(text) if len(text) <= 200 else f"{text[:200]!r}..."


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
        UserError: none of the images exists.
    """
    for name in names:  # the outer loop, so that a folder without any of them costs next to nothing
        for root in roots:
            if os.path.exists(os.path.join(root, name)):
                return root
    folders = " or ".join(map(str, roots))
    raise UserError(f"{path}: none of its {len(names)} images is under {folders}; say where they are with {option}")


def to_rle(segmentation: Any, size: Size) -> Rle:
    """Compressed run lengths of an annotation's polygons, uncompressed or compressed run lengths.

    Raises:
        ValueError: it is none of these, or has another size; the message says what is wrong with it.
    """
    try:
        if isinstance(segmentation, list):
            _check_polygons(segmentation)
            return coco_mask.merge(coco_mask.frPyObjects(segmentation, *size))
        if not isinstance(segmentation, dict):
            raise ValueError(f"it is {quoted(str(segmentation))}, neither a list nor run lengths")
        if tuple(segmentation["size"]) != tuple(size):
            raise ValueError(f"its size is {segmentation['size']}, not {list(size)}")
        counts = segmentation["counts"]
        if isinstance(counts, list):
            if not all(_is_int64(count) and count >= 0 for count in counts) or sum(counts) != size[0] * size[1]:
                raise ValueError(f"its counts are no whole numbers that add up to {size[0]} x {size[1]} pixels")
            return coco_mask.frPyObjects(segmentation, *size)
        rle = {"size": list(size), "counts": counts.encode("ascii") if isinstance(counts, str) else counts}
        coco_mask.area(rle)  # which reads the counts
    except ValueError:
        raise
    except Exception as error:  # pycocotools raises nearly anything
        raise ValueError(f"it cannot be read ({error!r})") from error
    return rle


def _check_polygons(polygons: list[Any]) -> None:
    if not polygons:
        raise ValueError("it has no polygon")
    for polygon in polygons:
        coordinates = np.array(polygon)
        if coordinates.dtype.kind not in "iuf" or coordinates.ndim != 1 or not np.isfinite(coordinates).all():
            raise ValueError("a polygon is no list of numbers")
        if len(polygon) < 6 or len(polygon) % 2:
            raise ValueError(f"a polygon has {len(polygon)} numbers; it needs x and y of three or more points")
        if np.abs(coordinates.astype(float)).max() > MAX_COORDINATE:
            raise ValueError(f"a coordinate exceeds {MAX_COORDINATE:,} pixels")


def to_mask(segmentation: Any, size: Size) -> NDArray[np.uint8]:
    """An annotation's mask, 0 or 1, (height, width).

    Raises:
        ValueError: as `to_rle`.
    """
    return coco_mask.decode(to_rle(segmentation, size))


def encode_masks(masks: NDArray[np.bool_]) -> list[Rle]:
    """Compressed run lengths of boolean masks (N, H, W)."""
    return list(coco_mask.encode(np.asfortranarray(masks.astype(np.uint8).transpose(1, 2, 0))))


def rle_objects(counts: Sequence[bytes], size: Size) -> list[Rle]:
    """Masks of one image, given by the counts of their compressed run lengths."""
    return [{"size": list(size), "counts": one} for one in counts]


def mask_areas(masks: Sequence[Rle]) -> NDArray[np.int64]:
    """Pixels (N,) of masks."""
    return np.asarray(coco_mask.area(masks), np.int64).reshape(-1)


def mask_boxes(masks: Sequence[Rle]) -> NDArray[np.float64]:
    """Tight boxes (N, 4) of masks: x1, y1, x2, y2 in pixels, x2 and y2 one past the last pixel."""
    corner_and_size = np.asarray(coco_mask.toBbox(masks), np.float64).reshape(-1, 4)
    return np.concatenate([corner_and_size[:, :2], corner_and_size[:, :2] + corner_and_size[:, 2:]], axis=1)


def to_xywh(boxes: NDArray[np.floating]) -> NDArray[np.floating]:
    """Boxes (N, 4) x1, y1, x2, y2 as COCO has them: x, y, width, height."""
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)


def mask_fields(rle: Rle) -> dict[str, Any]:
    """The part of a COCO annotation that follows from its mask: `area`, `bbox` and `segmentation`, JSON-ready."""
    return {
        "area": int(coco_mask.area(rle)),
        "bbox": [int(value) for value in coco_mask.toBbox(rle)],
        "segmentation": {"size": rle["size"], "counts": rle["counts"].decode()},
    }
