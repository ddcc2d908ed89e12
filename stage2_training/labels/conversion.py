"""What every conversion to COCO JSON shares: malformed labels, the sizes of images, the file that is written."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import ExifTags, Image
from pycocotools import mask as coco_mask

from stage1_proposals.common.errors import UserError

# A COCO instance dictionary: `info`, `images`, `annotations`, `categories`.
Coco = dict[str, Any]
PARTIAL = "OPTS=--partial accepts a part of it"


class LabelError(UserError):
    """An image's label that is missing or malformed, or an image that cannot be read: one can do without the image.

    Args:
        what: what is wrong, and where.
        advice: what to do.
    """

    def __init__(self, what: str, advice: str) -> None:
        super().__init__(what, advice)
        self.what = what

    def __str__(self) -> str:
        return "; ".join(self.args)


@contextmanager
def leaving_out(skipped: list[str] | None) -> Iterator[None]:
    """Do without an image whose label is malformed: note it in `skipped` and go on.

    An image is left out whole, since what is not labelled in it would count as background.

    Raises:
        UserError: `skipped` is None.
    """
    try:
        yield
    except LabelError as error:
        if skipped is None:
            raise UserError(f"{error}, or leave such images out with OPTS=--skip-malformed") from error
        skipped.append(error.what)


def check_count(what: object, found: int, expected: int, source: str) -> None:
    """Check that a published set is whole.

    Args:
        what: the folder or file that is counted.
        source: where to get it.

    Raises:
        UserError: with the number found and the number expected.
    """
    if found != expected:
        raise UserError(f"{what}: {found:,} images, not the {expected:,} it should have: get it at {source}; {PARTIAL}")


def info(
    description: str, source: str, found: int, expected: int | None, skipped: Sequence[str] | None
) -> dict[str, Any]:
    """What a COCO JSON says of itself: also that it is a part of a published split, and what was left out.

    Args:
        found: how many images there are.
        expected: how many it should have; None where there is no such number.
    """
    record: dict[str, Any] = {"description": description, "url": source}
    if expected not in (None, found):
        record["partial"] = {"found": found, "expected": expected}
    if skipped:
        record["skipped"] = list(skipped)
    return record


def image_size(path: Path) -> tuple[int, int]:
    """Width and height of an image as displayed, from its header alone.

    Raises:
        LabelError: it is not a readable image.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            turned = image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
    except (OSError, SyntaxError, ValueError) as error:
        raise LabelError(f"{path} cannot be read as an image: {error}", "put it back") from error
    return (height, width) if turned else (width, height)


def masked(rle: Mapping[str, Any]) -> dict[str, Any]:
    """What a COCO annotation says of a mask.

    Args:
        rle: run lengths, as pycocotools encodes them.
    """
    return {
        "area": int(coco_mask.area(rle)),
        "bbox": [int(value) for value in coco_mask.toBbox(rle)],
        "segmentation": {"size": rle["size"], "counts": rle["counts"].decode()},
    }


def numbered(annotations: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Annotations with ids from 1: to pycocotools, a match with the annotation of id 0 is none."""
    return [{**annotation, "id": number} for number, annotation in enumerate(annotations, 1)]


def to_json(coco: Mapping[str, Any]) -> str:
    """The text of a COCO JSON, the same for the same labels."""
    return json.dumps(coco, ensure_ascii=False, separators=(",", ":")) + "\n"
