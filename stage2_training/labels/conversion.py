"""What the converters to COCO JSON share: malformed labels, partial sets, and the JSON that they write."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from stage1_proposals.common.errors import UserError
from stage1_proposals.common.masks import Size
from stage1_proposals.images.decode import ImageError, read_image

# A COCO instance dictionary: `info`, `images`, `annotations`, `categories`.
Coco = dict[str, Any]
PARTIAL = "OPTS=--partial accepts a part of it"
PROGRESS_FROM = 500  # images; fewer are decoded in a few seconds


class Converted(NamedTuple):
    """Labels of one's own as COCO JSON.

    Attributes:
        coco: the dictionary.
        images: the folder that `file_name` is relative to.
        remarks: what the user should know, one line each.
    """

    coco: Coco
    images: Path
    remarks: list[str]


class LabelError(UserError):
    """An image's label is missing or malformed, or the image cannot be read; the other images can be used.

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
def skip_malformed(skipped: list[str] | None) -> Iterator[None]:
    """Leave out an image whose label is malformed: note the reason in `skipped` and go on.

    The whole image is left out, because its unlabelled objects would count as background.

    Raises:
        UserError: `skipped` is None.
    """
    try:
        yield
    except LabelError as error:
        if skipped is None:
            raise UserError(f"{error}, or leave such images out with OPTS=--skip-malformed") from error
        skipped.append(error.what)


def check_count(what: object, count: int, expected: int, source: str) -> None:
    """Check that a published set is complete.

    Args:
        what: the folder or file whose images are counted.
        source: where to get it.

    Raises:
        UserError: with both numbers.
    """
    if count != expected:
        raise UserError(f"{what}: {count:,} images, not the {expected:,} it should have: get it at {source}; {PARTIAL}")


def info(
    description: str, source: str, count: int, expected: int | None, skipped: Sequence[str] | None
) -> dict[str, Any]:
    """The `info` of a COCO JSON; it also notes that a published split is partial, and which images are left out.

    Args:
        count: number of images.
        expected: number of images in the published split; None where there is no such number.
    """
    record: dict[str, Any] = {"description": description, "url": source}
    if expected not in (None, count):
        record["partial"] = {"found": count, "expected": expected}
    if skipped:
        record["skipped"] = list(skipped)
    return record


def image_size(path: Path) -> Size:
    """Height and width of an image as displayed; it is decoded, so that training and evaluation can read it, too.

    Raises:
        LabelError: it cannot be decoded.
    """
    try:
        height, width, _ = read_image(path).shape
    except ImageError as error:
        raise LabelError(f"{path} cannot be read as an image: it {error}", error.advice) from error
    return height, width


def image_sizes(paths: Sequence[Path]) -> dict[Path, Size | LabelError]:
    """`image_size` of many images; several threads decode them, and a progress bar is shown if there are many."""

    def size(path: Path) -> Size | LabelError:
        try:
            return image_size(path)
        except LabelError as error:
            return error

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        found = tqdm(
            pool.map(size, paths), desc="images", unit="image", total=len(paths), disable=len(paths) < PROGRESS_FROM
        )
        return dict(zip(paths, found, strict=True))


def numbered(annotations: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Annotations with ids from 1: pycocotools takes a match with the annotation of id 0 for none."""
    return [{**annotation, "id": number} for number, annotation in enumerate(annotations, 1)]


def to_json(coco: Mapping[str, Any]) -> str:
    """The text of a COCO JSON; equal labels give equal text."""
    return json.dumps(coco, ensure_ascii=False, separators=(",", ":")) + "\n"
