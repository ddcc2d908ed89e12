"""COCO JSON: one reader for image lists, imported masks, labels and evaluation.

Each rule for such files is defined here once, with its message. Contents are checked as far as they are used: images,
classes and ids when the file is read, an object when it is accessed, its mask when it is converted to run lengths.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from sys import float_info
from typing import Any, TypeGuard

import numpy as np

from stage1_proposals.common.errors import UserError, quoted
from stage1_proposals.common.image_paths import is_file_name, portable_path
from stage1_proposals.common.masks import Rle, Size, mask_areas, mask_boxes, to_rle, to_xywh

ImageId = int | str
Box = list[float]  # x, y, width and height in pixels

ADVICE = "correct the file"
IMAGE_KEYS = ("id", "file_name", "height", "width")
# Which files of other programs are not COCO JSON, by a key that each of them has, and what to do with them.
FOREIGN = {
    "shapes": "a labelme file, which labels one image; to use such labels, name the folder of all of them",
    "_via_img_metadata": "a project of VIA; export its annotations as COCO",
    "regions": "labels in VIA's own format; export them as COCO",
    "predictions": "labels in Label Studio's own format; export them as COCO",
}
BOX_TOLERANCE = 2  # pixels by which rasterising a polygon may move an edge
CATEGORIES_SHOWN = 5  # ids in the message on an object of none of them
MIN_IOU = 0.5  # of a stated box and the mask's, if both mean the same object
MAX_AREA_RATIO = 2.0  # of a stated area and the mask's, likewise


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
    """An entry of `images`; its size is None where the file does not state both height and width, as positive numbers.

    `file_name` is as the file has it, but without `./` and `//`. It may be a Windows path: see `image_paths`.
    """

    id: ImageId
    file_name: str
    size: Size | None = None


@dataclass(frozen=True, slots=True)
class CocoAnnotation:
    """An object as the file states it.

    Attributes:
        where: the file, the object and its image, for messages.
        category_id: None where it is no whole number.
        stated_category: `category_id` as the file has it, for messages.
        segmentation: polygons or run lengths, unchecked; see `rle`.
        iscrowd: whether training leaves it out and evaluation ignores it: `iscrowd` or `ignore` is 1.
        bbox: x, y, width and height in pixels; None where the file does not state four numbers.
        area: None where the file does not state a positive number.
        score: None where the file states none.
    """

    where: str
    image_id: ImageId
    category_id: int | None
    stated_category: Any
    segmentation: Any
    iscrowd: bool
    bbox: Box | None
    area: float | None
    score: float | None

    def rle(self, size: Size) -> Rle:
        """The mask.

        Raises:
            AnnotationError: it is neither polygons nor run lengths of an image of this size, or it contradicts the
                object's own box and area: it is another object, or something else that was read as a mask.
        """
        try:
            rle = to_rle(self.segmentation, size)
        except ValueError as error:
            what = f"`segmentation` is no polygons or run lengths of its image: {error}"
            raise AnnotationError(f"{self.where}: {what}") from error
        if self.bbox is not None and self.area is not None:
            (area,), (tight,) = mask_areas([rle]).tolist(), to_xywh(mask_boxes([rle])).tolist()
            ratio = max(self.area, area) / max(1, min(self.area, area))
            if ratio > MAX_AREA_RATIO and not self.has_box_around(tight, size):
                raise AnnotationError(
                    f"{self.where}: `segmentation` contradicts `bbox` and `area`: it covers {area:,} pixels in the box "
                    f"{[round(value) for value in tight]}, not {self.area:g} in {self.bbox}"
                )
        return rle

    def has_box_around(self, tight: Box, size: Size) -> bool:
        """Whether `bbox` means the same object as a mask's tight box; some programs write two corners."""
        assert self.bbox is not None
        x, y, right, bottom = self.bbox
        return any(_are_close(box, tight, size) for box in (self.bbox, [x, y, right - x, bottom - y]))

    def box_around(self, tight: Sequence[float]) -> Box:
        """The box as the file states it if it lies around the mask, else the mask's `tight` one."""
        box = self.bbox
        if box and all(abs(stated - value) <= BOX_TOLERANCE for stated, value in zip(box, tight, strict=True)):
            return box
        return [float(value) for value in tight]


@dataclass(frozen=True)
class CocoDocument:
    """A COCO instance JSON.

    Attributes:
        images: in the file's order.
        categories: names by id, in the file's order.
        rows: for each image, the positions of its objects in the file's list.
        content: the file's lists, unchanged.
        remarks: what was left out, one line each.
    """

    path: Path
    images: tuple[CocoImage, ...]
    categories: Mapping[int, str]
    rows: Mapping[ImageId, Sequence[int]]
    content: Mapping[str, list[Any]]
    remarks: tuple[str, ...] = ()

    def annotations_of(self, image: CocoImage) -> Iterator[CocoAnnotation]:
        """The objects of an image, in the file's order.

        Raises:
            AnnotationError: one is malformed.
        """
        for row in self.rows[image.id]:
            yield _annotation(self.path, f"annotations[{row}]", self.content["annotations"][row], image)

    def annotations(self) -> Iterator[CocoAnnotation]:
        """The objects of all images, image by image.

        Raises:
            AnnotationError: one is malformed.
        """
        for image in self.images:
            yield from self.annotations_of(image)

    def check_category(self, annotation: CocoAnnotation) -> int:
        """The object's category.

        Raises:
            AnnotationError: it has none that is in the file's categories.
        """
        number = annotation.category_id
        if number is None or number not in self.categories:
            stated = "missing" if annotation.stated_category is None else _shown(annotation.stated_category)
            known = ", ".join(map(str, list(self.categories)[:CATEGORIES_SHOWN]))
            more = ", ..." if len(self.categories) > CATEGORIES_SHOWN else ""
            raise AnnotationError(
                f"{annotation.where}: `category_id` is not in the file's categories: it is {stated}, not one of "
                f"{known or 'none'}{more}"
            )
        return number


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


def read_masks(path: str | Path) -> tuple[tuple[CocoImage, ...] | None, Iterator[CocoAnnotation], tuple[str, ...]]:
    """Read masks that another program has made: a COCO JSON with or without categories, or a list of results.

    Returns:
        the images, or None for a list of results, which is annotations alone; the annotations of these images; and
        remarks on what is left out, one line each.

    Raises:
        UserError: it cannot be read, is neither, or none of its annotations is of its images; as the annotations are
            read, one is malformed.
    """
    path = Path(path)
    document = _load(path)
    if isinstance(document, list):
        return None, (_annotation(path, f"results[{row}]", entry) for row, entry in enumerate(document)), ()
    data_set = _document(path, document, categories=False, ignore_unknown_images=True, text_ids=True)
    entries = data_set.content["annotations"]
    if data_set.images and entries and not any(data_set.rows.values()):
        raise UserError(
            f"{path}: none of its {len(entries):,} annotations is of one of its images: annotations[0] has the "
            f"`image_id` {_shown(entries[0]['image_id'])}, images[0] the `id` {_shown(data_set.images[0].id)}; {ADVICE}"
        )
    return data_set.images, data_set.annotations(), data_set.remarks


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

    document = _load(path, keep_images)
    if not isinstance(document, dict) or "images" not in document:
        document = _load(path)  # as a whole: by what `keep_images` leaves out, files of other programs are known
    return _images(path, _list(path, document, "images"), text_ids=False)


def stated_size(entry: Mapping[str, Any], *keys: str) -> Size | None:
    """The height and width that a file states for an image; None if it does not state both.

    Programs that do not know a side leave it out or write null, 0 or -1.

    Args:
        keys: those of height and width.

    Raises:
        ValueError: a side is no whole number.
    """
    sides = []
    for key in keys:
        value = entry.get(key)
        if value is not None and (not _is_number(value) or value != int(value)):
            kind = "text, not a number" if isinstance(value, str) else "no whole number"
            raise ValueError(f"has a `{key}` that is {kind} ({quoted(str(value))})")
        sides.append(int(value or 0))
    height, width = sides
    return (height, width) if height > 0 and width > 0 else None


def _load(path: Path, object_hook: Callable[[dict[str, Any]], Any] | None = None) -> Any:
    try:
        return json.loads(path.read_bytes(), object_hook=object_hook)  # bytes may begin with a byte order mark
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        advice = "save it as UTF-8 (unpack it, if it is compressed)"
        raise UserError(f"{path}: not JSON: it is not UTF-8 text; {advice}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON ({error})") from error


def _document(path: Path, document: Any, categories: bool, ignore_unknown_images: bool, text_ids: bool) -> CocoDocument:
    parts = ("images", "annotations", *(["categories"] if categories else []))
    content = {part: _list(path, document, part) for part in parts}
    images = _images(path, content["images"], text_ids)
    rows: dict[ImageId, list[int]] = {image.id: [] for image in images}
    orphans: list[tuple[int, ImageId]] = []
    for row, entry in enumerate(content["annotations"]):
        image_id = _image_id(f"{path}: annotations[{row}]", entry)
        if image_id not in rows:
            image_id = _other_form(image_id)
        if image_id in rows:
            rows[image_id].append(row)
        else:
            orphans.append((row, entry["image_id"]))
    _check_objects(path, content["annotations"])
    names, remarks = _categories(path, content["categories"], content["annotations"]) if categories else ({}, ())
    if orphans:
        (row, image_id), count = orphans[0], f"{len(orphans):,} of {len(content['annotations']):,}"
        if not ignore_unknown_images:
            raise UserError(
                f"{path}: annotations[{row}] has no `image_id` that is in its images, but {_shown(image_id)}; {count} "
                f"annotations are of unknown images; {ADVICE}"
            )
        remarks += (
            f"{path}: {count} annotations are of unknown images and left out; the first, annotations[{row}], has the "
            f"`image_id` {_shown(image_id)}",
        )
    return CocoDocument(path, images, names, rows, content, remarks)


def _other_form(image_id: ImageId) -> ImageId:
    """The same id as text or as a number: VIA writes `id` as a number and `image_id` as text, others the reverse."""
    if isinstance(image_id, int):
        return str(image_id)
    return int(image_id) if image_id.isdecimal() and len(image_id) < 20 else image_id


def _check_objects(path: Path, entries: list[Any]) -> None:
    """Refuse objects that are in the list twice; different ones may share an `id`, which is for messages alone."""
    rows: dict[ImageId, int] = {}
    for row, entry in enumerate(entries):
        number = entry.get("id")
        if _is_int64(number) or isinstance(number, str):
            first = rows.setdefault(number, row)
            if first != row and entries[first] == entry:
                raise UserError(
                    f"{path}: annotations[{first}] and annotations[{row}] are the same object (`id` {_shown(number)}); "
                    f"name each once"
                )


def _list(path: Path, document: Any, key: str) -> list[Any]:
    if isinstance(document, dict) and isinstance(document.get(key), list) and "shapes" not in document:
        return document[key]
    entries = document.values() if isinstance(document, dict) else document if isinstance(document, list) else ()
    for part in (document, next(iter(entries), None)):  # VIA and Label Studio have an entry for each image
        for sign, what in FOREIGN.items():
            if isinstance(part, dict) and sign in part:
                raise UserError(f"{path}: is {what}")
    raise UserError(f"{path}: not COCO JSON, it has no list `{key}`")


def _images(path: Path, entries: list[Any], text_ids: bool) -> tuple[CocoImage, ...]:
    images = [_image(f"{path}: images[{row}]", entry, text_ids) for row, entry in enumerate(entries)]
    _check_unique(path, "images", "id", [image.id for image in images])
    names = [portable_path(image.file_name) for image in images]
    for first, row in _repeated(names):
        raise UserError(
            f"{path}: images[{first}] and images[{row}] are the same image ({quoted(names[row])}); name each once"
        )
    return tuple(images)


def _image(where: str, entry: Any, text_ids: bool) -> CocoImage:
    name = _text(where, entry, "file_name")
    if not is_file_name(name):
        raise UserError(f"{where} is no file name ({quoted(name)}); {ADVICE}")
    where = f"{where} ({quoted(name)})"
    number = entry.get("id")
    if not (_is_int64(number) or (text_ids and isinstance(number, str))):
        raise UserError(f"{where} needs a whole number of 64 bits as `id`; {ADVICE}")
    try:
        size = stated_size(entry, "height", "width")
    except ValueError as error:
        raise UserError(f"{where} {error}; {ADVICE}") from error
    return CocoImage(number, PurePosixPath(name).as_posix(), size)


def _categories(path: Path, entries: list[Any], annotations: list[Any]) -> tuple[dict[int, str], tuple[str, ...]]:
    """Names without blanks around them, by id; and remarks on those that are left out.

    Roboflow lists a project's name as a category, too: the supercategory of all others, which no object has.
    """
    names = [_text(f"{path}: categories[{row}]", entry, "name").strip() for row, entry in enumerate(entries)]
    for row, entry in enumerate(entries):
        if not names[row]:
            raise UserError(f"{path}: categories[{row}] has an empty `name`; {ADVICE}")
        if not _is_int64(entry.get("id")):
            raise UserError(f"{path}: categories[{row}] ({quoted(names[row])}) needs a whole number as `id`; {ADVICE}")
    used = {number for entry in annotations if _is_int64(number := entry.get("category_id"))}
    kept, remarks = [], []
    for row, entry in enumerate(entries):
        others = [other.get("supercategory") for other in entries if other is not entry]
        if entry["id"] not in used and names[row] in others:
            remarks.append(
                f"{path}: category {quoted(names[row])} is left out: it is the supercategory of others, and no object "
                f"is of it"
            )
        else:
            kept.append(row)
    ids, names = [entries[row]["id"] for row in kept], [names[row] for row in kept]
    _check_unique(path, "categories", "id", ids, kept)
    _check_unique(path, "categories", "name", names, kept)
    return dict(zip(ids, names, strict=True)), tuple(remarks)


def _annotation(path: Path, position: str, entry: Any, image: CocoImage | None = None) -> CocoAnnotation:
    """An object; a list of results has no images."""
    image_id = _image_id(f"{path}: {position}", entry) if image is None else image.id
    number, name = entry.get("id"), "" if image is None else f" of image {quoted(image.file_name)}"
    where = f"{path}: {f'annotation {number}' if _is_int64(number) else position}{name}"
    category_id, box, area, score = (entry.get(key) for key in ("category_id", "bbox", "area", "score"))
    ignored = [_flag(where, entry, key) for key in ("iscrowd", "ignore")]
    if score is not None and not _is_number(score):
        raise AnnotationError(f"{where}: `score` is no number ({quoted(str(score))})")
    for key, value in (("area", [area]), ("bbox", box)):
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str) and _reads_as_number(text):
                raise AnnotationError(f"{where}: `{key}` is text, not numbers ({quoted(text)})")
    segmentation = entry.get("segmentation")
    if isinstance(segmentation, list) and segmentation and all(map(_is_number, segmentation)):
        segmentation = [segmentation]  # VIA writes one polygon without a list around it
    return CocoAnnotation(
        where,
        image_id,
        category_id if _is_int64(category_id) else None,
        category_id,
        segmentation,
        any(ignored),
        box if isinstance(box, list) and len(box) == 4 and all(map(_is_number, box)) else None,
        area if _is_number(area) and area > 0 else None,
        None if score is None else float(score),
    )


def _flag(where: str, entry: Mapping[str, Any], key: str) -> bool:
    flag = entry.get(key, 0)
    if not isinstance(flag, int | float) or flag not in (0, 1):
        raise AnnotationError(f"{where}: `{key}` is neither 0 nor 1 ({_shown(flag)})")
    return bool(flag)


def _are_close(box: Box, tight: Box, size: Size) -> bool:
    """Whether two boxes overlap by half inside the image, or their edges are where rasterising may move them."""
    edges = np.array([[x, y, x + width, y + height] for x, y, width, height in (box, tight)])
    edges = edges.clip(0, [size[1], size[0]] * 2)
    if np.abs(edges[0] - edges[1]).max() <= BOX_TOLERANCE:
        return True
    common = np.prod(np.maximum(0, edges[:, 2:].min(0) - edges[:, :2].max(0)))
    areas = np.prod(np.maximum(0, edges[:, 2:] - edges[:, :2]), axis=1)
    return bool(common >= MIN_IOU * (areas.sum() - common)) and common > 0


def _image_id(where: str, entry: Any) -> ImageId:
    image_id = entry.get("image_id") if isinstance(entry, dict) else None
    if image_id is None:
        raise UserError(f"{where} has no `image_id`; {ADVICE}")
    if not _is_int64(image_id) and not isinstance(image_id, str):
        raise UserError(f"{where} has an `image_id` that is no whole number of 64 bits ({_shown(image_id)}); {ADVICE}")
    return image_id


def _reads_as_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _shown(value: Any) -> str:
    """A value of the file as a message can hold it: text in quotes, on one line, of at most 200 characters."""
    return quoted(value) if isinstance(value, str) else repr(value)[:200]


def _text(where: str, entry: Any, key: str) -> str:
    text = entry.get(key) if isinstance(entry, dict) else None
    if not isinstance(text, str):
        raise UserError(f"{where} needs a text as `{key}`; {ADVICE}")
    return text


def _repeated(values: Sequence[Any]) -> Iterator[tuple[int, int]]:
    """The positions of values that are there before, each with the first position."""
    rows: dict[Any, int] = {}
    for row, value in enumerate(values):
        first = rows.setdefault(value, row)
        if first != row:
            yield first, row


def _check_unique(path: Path, part: str, key: str, values: Sequence[Any], rows: Sequence[int] | None = None) -> None:
    """Refuse equal values; `rows` are their positions in the file's list."""
    for first, second in _repeated(values):
        places = [f"{part}[{place if rows is None else rows[place]}]" for place in (first, second)]
        raise UserError(f"{path}: {' and '.join(places)} have the same {key} {values[second]!r}; {ADVICE}")


def _is_int64(value: Any) -> TypeGuard[int]:
    return type(value) is int and -(2**63) <= value < 2**63


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= float_info.max
