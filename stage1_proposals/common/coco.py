"""COCO JSON: one reader for image lists, imported masks, labels and evaluation.

Each rule for such files is defined here once, with its message. Contents are checked as far as they are used: images
and ids when the file is read, an object when it is accessed, its mask when it is converted to run lengths.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from sys import float_info
from typing import Any, TypeGuard

from stage1_proposals.common.errors import UserError, quoted
from stage1_proposals.common.masks import Rle, Size, to_rle

ImageId = int | str

ADVICE = "correct the file"
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
        content: the file's lists, unchanged.
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
