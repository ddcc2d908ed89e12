"""Masks as label files that people correct in their tools: COCO JSON, labelme's files and YOLO's.

Each format has a writer: `write` takes one image after the other, `close` writes what belongs to all of them. Each
writes into a folder or file of its own in the output folder. No file that is there already is changed (`NewFiles`), so
that corrections are safe, and a writer that was interrupted can be run again.
"""

import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from stage1_proposals.common.errors import UserError, quoted
from stage1_proposals.common.files import atomic_write, encode_text, writing
from stage1_proposals.common.masks import Rle, Size, mask_fields, rle_objects
from stage1_proposals.common.polygons import Ring, join, mask_polygons

LABELME_VERSION = "5.5.0"  # of labelme, whose format this is


@dataclass(frozen=True)
class ImageLabels:
    """The objects of one image.

    Attributes:
        image_id: its id in COCO JSON.
        file_name: its path in the folder of the images, with forward slashes.
        size: its (height, width) in pixels, as displayed.
        counts: compressed run lengths of L masks. One without a pixel is in COCO JSON alone.
        scores: L numbers, as JSON can hold them.
        classes: L positions in the list of class names.
        boxes: L boxes x, y, width, height in pixels; None: tight around the masks.
    """

    image_id: int
    file_name: str
    size: Size
    counts: Sequence[bytes]
    scores: Sequence[float]
    classes: Sequence[int]
    boxes: Sequence[Sequence[float]] | None = None

    def rle(self) -> list[Rle]:
        """The masks as pycocotools' run lengths."""
        return rle_objects(self.counts, self.size)

    def at_least(self, score: float) -> "ImageLabels":
        """The objects with this score or a higher one."""
        rows = [row for row, value in enumerate(self.scores) if value >= score]
        return replace(
            self,
            counts=[self.counts[row] for row in rows],
            scores=[self.scores[row] for row in rows],
            classes=[self.classes[row] for row in rows],
            boxes=None if self.boxes is None else [self.boxes[row] for row in rows],
        )

    @cached_property
    def polygons(self) -> list[list[Ring]]:
        """The polygons of each mask, see `mask_polygons`; computed once for all formats."""
        return [mask_polygons(rle) for rle in self.rle()]


@dataclass
class NewFiles:
    """Writes files, but changes none: one that is there already stays as it is.

    Attributes:
        written: number of files written.
        unchanged: number of files that were there with this content.
        kept: files that were there with other content: corrected by people, or labels of other masks.
    """

    written: int = 0
    unchanged: int = 0
    kept: list[Path] = field(default_factory=list)

    def write(self, path: Path, text: str | Iterable[str]) -> None:
        """Write a text, or its parts one after the other, atomically, unless the file is there; its folder is made.

        Raises:
            UserError: it cannot be written.
        """
        parts = map(encode_text, [text] if isinstance(text, str) else text)
        with writing(path):
            if not path.exists():
                with atomic_write(path) as scratch, scratch.open("wb") as file:
                    file.writelines(parts)
                self.written += 1
            elif _holds(path, parts):
                self.unchanged += 1
            else:
                self.kept.append(path)

    def write_once(self, path: Path, make: Callable[[], bytes]) -> None:
        """Make a file and write it atomically, unless it is there already, whatever it holds.

        Raises:
            UserError: it cannot be written.
        """
        if path.exists():
            self.unchanged += 1
            return
        data = make()
        with writing(path), atomic_write(path) as scratch:
            scratch.write_bytes(data)
        self.written += 1


def _holds(path: Path, parts: Iterable[bytes]) -> bool:
    """Whether a file holds just these parts."""
    with path.open("rb") as file:
        return all(file.read(len(part)) == part for part in parts) and not file.read(1)


class Spool:
    """Text that is kept on disk until all of it is known, so that memory does not grow with the number of images."""

    def __init__(self) -> None:
        self.file = tempfile.TemporaryFile("w+", encoding="utf-8", errors="surrogateescape", newline="")  # noqa: SIM115

    def write(self, text: str) -> None:
        """Add text, which ends with a line's end."""
        self.file.write(text)

    def lines(self) -> Iterator[str]:
        """All lines, with their ends; nothing may be added afterwards."""
        self.file.seek(0)
        yield from self.file
        self.file.close()


class LabelWriter(Protocol):
    """Writes labels in one format."""

    def write(self, labels: ImageLabels) -> None:
        """Write the labels of an image.

        Raises:
            UserError: a file cannot be written, or another image has the same one.
        """

    def close(self) -> None:
        """Write what belongs to all images.

        Raises:
            UserError: a file cannot be written.
        """


def coco_annotations(labels: ImageLabels, category_ids: Sequence[int] | None = None) -> list[dict[str, Any]]:
    """The objects of an image as COCO annotations, without ids; masks as compressed run lengths.

    Args:
        category_ids: of the classes; None: from 1.
    """
    annotations = []
    for row, (rle, index, score) in enumerate(zip(labels.rle(), labels.classes, labels.scores, strict=True)):
        category = index + 1 if category_ids is None else category_ids[index]
        stated = {} if labels.boxes is None else {"bbox": list(labels.boxes[row])}
        fields = {"image_id": labels.image_id, "category_id": category, **mask_fields(rle), **stated}
        annotations.append({**fields, "iscrowd": 0, "score": score})
    return annotations


class CocoWriter:
    """`coco.json`, which keeps masks exactly: a COCO data set whose annotations also have a `score`.

    Args:
        category_ids: of the classes; None: from 1.
    """

    def __init__(
        self,
        out: Path,
        image_root: Path,
        names: Sequence[str],
        files: NewFiles,
        category_ids: Sequence[int] | None = None,
    ) -> None:
        self.path = out / "coco.json"
        self.names, self.files = names, files
        self.category_ids = category_ids or range(1, len(names) + 1)
        self.count = 0
        self.images, self.annotations = Spool(), Spool()

    def write(self, labels: ImageLabels) -> None:
        """See `LabelWriter`; nothing is written before `close`."""
        height, width = labels.size
        image = {"id": labels.image_id, "file_name": labels.file_name, "height": height, "width": width}
        self.images.write(json.dumps(image) + "\n")
        for annotation in coco_annotations(labels, self.category_ids):
            self.count += 1
            self.annotations.write(json.dumps({"id": self.count} | annotation) + "\n")

    def close(self) -> None:
        """See `LabelWriter`."""
        self.files.write(self.path, self._parts())

    def _parts(self) -> Iterator[str]:
        """The file's text: an image, object or category on each line."""
        categories = [{"id": one, "name": name} for one, name in zip(self.category_ids, self.names, strict=True)]
        named = [json.dumps(category) + "\n" for category in categories]
        parts = {"images": self.images.lines(), "annotations": self.annotations.lines(), "categories": iter(named)}
        opening = "{"
        for key, lines in parts.items():
            yield f'{opening}"{key}": ['
            opening = ",\n"
            for number, line in enumerate(lines):
                yield f"{',' if number else ''}\n{line.rstrip()}"
            yield "\n]"
        yield "}\n"


class LabelmeWriter:
    """`labelme/`, with one JSON file per image: one polygon for each connected part of an object.

    Parts of one object share a `group_id`. The score stands in the description. `imagePath` is relative.
    """

    def __init__(self, out: Path, image_root: Path, names: Sequence[str], files: NewFiles) -> None:
        self.names, self.files, self.image_root = names, files, image_root.resolve()
        self.paths = LabelPaths((out / "labelme").resolve(), ".json")

    def write(self, labels: ImageLabels) -> None:
        """See `LabelWriter`."""
        path = self.paths.of(labels.file_name)
        shapes: list[dict[str, Any]] = []
        objects = zip(labels.polygons, labels.classes, labels.scores, strict=True)
        for number, (polygons, index, score) in enumerate(objects):
            shape: dict[str, Any] = {
                "label": self.names[index],
                "group_id": number if len(polygons) > 1 else None,
                "description": f"score {score:.3f}",
                "shape_type": "polygon",
                "flags": {},
                "mask": None,
            }
            shapes += [{**shape, "points": polygon.tolist()} for polygon in polygons]
        document: dict[str, Any] = {
            "version": LABELME_VERSION,
            "flags": {},
            "shapes": shapes,
            "imagePath": os.path.relpath(self.image_root / labels.file_name, path.parent),
            "imageData": None,
            "imageHeight": labels.size[0],
            "imageWidth": labels.size[1],
        }
        self.files.write(path, json.dumps(document, indent=2) + "\n")

    def close(self) -> None:
        """See `LabelWriter`; there is nothing to do."""


class YoloWriter:
    """`yolo/`, a segmentation set of Ultralytics.

    A line of `labels/NAME.txt` is an object: its class from 0, and one polygon through all its parts (see `join`) in
    fractions of width and height. `images` is a link to the folder of the images, `images.txt` lists those that are
    labelled, and `data.yaml` names the classes.
    """

    def __init__(self, out: Path, image_root: Path, names: Sequence[str], files: NewFiles) -> None:
        self.folder, self.names, self.files = out / "yolo", names, files
        self.paths = LabelPaths(self.folder / "labels", ".txt")
        link, target = self.folder / "images", image_root.resolve()
        if not os.path.lexists(link):
            with writing(link):
                link.symlink_to(target)
        elif link.resolve() != target:
            raise UserError(f"{link}: is not the folder {target} of the images; choose another OUT")

    def write(self, labels: ImageLabels) -> None:
        """See `LabelWriter`."""
        height, width = labels.size
        lines = []
        for polygons, index in zip(labels.polygons, labels.classes, strict=True):
            if not polygons:  # a mask without a pixel
                continue
            points = join(polygons) / (width, height)
            lines.append(" ".join([str(index), *(f"{value:.6f}" for value in points.ravel())]) + "\n")
        self.files.write(self.paths.of(labels.file_name), "".join(lines))

    def close(self) -> None:
        """See `LabelWriter`."""
        self.files.write(self.folder / "images.txt", (f"./images/{name}\n" for name in self.paths.image_of.values()))
        # Text in JSON is text in YAML. Training wants a `val`, which is all images, too, until people divide them.
        quoted_names = (json.dumps(name, ensure_ascii=False) for name in self.names)
        names = "".join(f"  {number}: {name}\n" for number, name in enumerate(quoted_names))
        self.files.write(self.folder / "data.yaml", f"train: images.txt\nval: images.txt\nnames:\n{names}")


class LabelPaths:
    """The files of images in a folder, which have the images' paths but for the suffix."""

    def __init__(self, folder: Path, suffix: str) -> None:
        self.folder, self.suffix = folder, suffix
        self.image_of: dict[Path, str] = {}

    def of(self, file_name: str) -> Path:
        """The file of an image.

        Raises:
            UserError: another image has the same one.
        """
        path = self.folder / PurePosixPath(file_name).with_suffix(self.suffix)
        other = self.image_of.setdefault(path, file_name)
        if other != file_name:
            raise UserError(
                f"{path}: would hold the labels of {quoted(other)} and of {quoted(file_name)}; rename one of the images"
            )
        return path


# By the name of the format: its writer, given the output folder, that of the images, the class names and the files.
WRITERS: dict[str, Callable[[Path, Path, Sequence[str], NewFiles], LabelWriter]] = {
    "coco": CocoWriter,
    "labelme": LabelmeWriter,
    "yolo": YoloWriter,
}
