"""CTW1500 as its authors publish it -> COCO JSON.

The layout is that of the published archives, unpacked side by side:

    train_images/0001.jpg ...   ctw1500_train_labels/0001.xml ...    1,000 images, one XML file each
    test_images/1001.jpg ...    gt_ctw1500/0001001.txt ...           500 images, one text file each

The labels leave some questions open; they are read as follows:

- Polygons are in pixels of the image as displayed, with EXIF orientation applied, which is what both this project's
  image reader and MMDetection's loader see.
- A line with the transcription `###` is illegible. It becomes `iscrowd` 1: COCO evaluation does not require it and
  counts no detection on it as false, and MMDetection leaves it out of training.
- `area` and `bbox` are those of the polygon as pycocotools rasterises it, inside the image.
- A polygon without a pixel inside its image is left out and listed in the JSON's `info.dropped`.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from xml.parsers import expat

import numpy as np

from stage1_proposals.common.errors import UserError
from stage1_proposals.common.files import write_text
from stage1_proposals.common.masks import Size, mask_fields, to_rle
from stage2_training.labels.conversion import (
    PARTIAL,
    Coco,
    LabelError,
    check_count,
    image_sizes,
    info,
    numbered,
    skip_malformed,
    to_json,
)

SOURCE = "https://github.com/Yuliang-Liu/Curve-Text-Detector"
ILLEGIBLE = "###"
POINTS = 14
MAX_COORDINATE = 100_000  # no image is this large
_BARE_AMPERSAND = re.compile(r"&(?!(?:amp|lt|gt|quot|apos|#\d+|#x[0-9a-fA-F]+);)")


@dataclass(frozen=True)
class TextLine:
    """One labelled line of text."""

    polygon: np.ndarray  # int64 (14, 2): x, y in pixels
    text: str  # transcription; `###` when illegible
    line: int  # line number in the label file, from 1


@dataclass(frozen=True)
class Split:
    """The files of one half of CTW1500, and how its labels are read."""

    images: str
    labels: str
    label_pattern: str
    first_id: int
    count: int
    read: Callable[[Path], list[TextLine]]

    def label_name(self, image: Path) -> str:
        """The name of an image's label file."""
        return self.label_pattern.format(image.stem)


def read_train_label(path: Path) -> list[TextLine]:
    """Read the XML label of a training image; transcriptions may contain bare ampersands.

    Raises:
        LabelError: naming file and line, if it is not XML of this form or a polygon has not 14 points.
    """
    boxes: list[dict] = []
    open_tags: list[str] = []
    parser = expat.ParserCreate()

    def start(tag: str, _attributes: dict[str, str]) -> None:
        if not open_tags and tag != "Annotations":
            raise _malformed(path, parser.CurrentLineNumber, f"the outermost element is <{tag}>, not <Annotations>")
        open_tags.append(tag)
        if tag == "box":
            boxes.append({"line": parser.CurrentLineNumber, "label": "", "segs": ""})
        elif tag == "segs" and boxes:
            boxes[-1]["line"] = parser.CurrentLineNumber

    def characters(text: str) -> None:
        if open_tags[-1] in ("label", "segs") and boxes:
            boxes[-1][open_tags[-1]] += text

    parser.StartElementHandler = start
    parser.EndElementHandler = lambda _tag: open_tags.pop()
    parser.CharacterDataHandler = characters
    try:
        parser.Parse(_BARE_AMPERSAND.sub("&amp;", _read_text(path)), True)
    except expat.ExpatError as error:
        raise _malformed(path, error.lineno, f"not well-formed XML ({expat.ErrorString(error.code)})") from error
    return [
        TextLine(_polygon(box["segs"].strip().split(","), path, box["line"]), box["label"].strip(), box["line"])
        for box in boxes
    ]


def read_test_label(path: Path) -> list[TextLine]:
    """Read the text label of a test image: per line 28 numbers, then `####` and the transcription.

    Raises:
        LabelError: naming file and line, if a line is not of this form.
    """
    lines = []
    for number, row in enumerate(_read_text(path).split("\n"), start=1):
        if not row.strip():
            continue
        *numbers, text = row.strip().split(",", 2 * POINTS)
        if text and not text.startswith("####"):
            raise _malformed(path, number, f"'####' and the transcription should follow {2 * POINTS} numbers")
        lines.append(TextLine(_polygon(numbers, path, number), text.removeprefix("####").strip(), number))
    return lines


SPLITS = {
    "train": Split("train_images", "ctw1500_train_labels", "{}.xml", 1, 1000, read_train_label),
    "test": Split("test_images", "gt_ctw1500", "000{}.txt", 1001, 500, read_test_label),
}


def convert_ctw1500(root: Path, split: str, skipped: list[str] | None = None, expected: int | None = None) -> Coco:
    """Convert one half of CTW1500, `train` or `test`, to a COCO instance dictionary.

    Image ids are the images' numbers, `file_name` is relative to `root`, the one category is `text` with id 1, and
    annotations carry their transcription as `text`.

    Args:
        skipped: images whose label is missing or malformed, or that cannot be read, are left out and noted here.
        expected: number of images in the published split; another number is noted in the JSON's `info`.

    Raises:
        UserError: a folder is missing, or a label belongs to no image; unless `skipped` is a list, a label is missing
            or malformed, or an image cannot be read.
    """
    parts = SPLITS[split]
    paths = _images(root, parts)
    labels = {path.name for path in _files(root / parts.labels)}
    unclaimed = labels - {parts.label_name(path) for path in paths}
    if unclaimed:
        raise UserError(f"{root / parts.labels / min(unclaimed)} belongs to no image in {root / parts.images}")
    images: list[dict] = []
    annotations: list[dict] = []
    dropped: list[str] = []
    sizes = image_sizes(paths)
    for path in paths:
        with skip_malformed(skipped):
            label = root / parts.labels / parts.label_name(path)
            if label.name not in labels:
                raise LabelError(f"{label} is missing: it labels {path}", "put it back")
            size = sizes[path]
            if isinstance(size, LabelError):
                raise size
            height, width = size
            lines = parts.read(label)
            image = {"id": int(path.stem), "file_name": f"{parts.images}/{path.name}", "width": width, "height": height}
            images.append(image)
            for line in lines:
                annotation = _annotate(line, (height, width), label)
                if annotation is None:
                    dropped.append(f"{parts.labels}/{label.name}, line {line.line}")
                else:
                    annotations.append({"image_id": image["id"], **annotation})
    return {
        "info": {
            **info(f"CTW1500 layout, {split}", SOURCE, len(paths), expected, skipped),
            "dropped": dropped,
        },
        "images": images,
        "annotations": numbered(annotations),
        "categories": [{"id": 1, "name": "text"}],
    }


def write_annotations(root: Path, split: str, skipped: list[str] | None = None, expected: int | None = None) -> Path:
    """Convert a split into `<root>/annotations/<split>.json`, as `convert_ctw1500`."""
    coco = convert_ctw1500(root, split, skipped, expected)
    return write_text(root / "annotations" / f"{split}.json", to_json(coco))


def check_complete(root: Path, split: str, count: int) -> None:
    """Check that a split has all its images and labels: `count` of each, numbered without a gap.

    Raises:
        UserError: naming the folder, the first missing file and where to get it.
    """
    parts = SPLITS[split]
    images = [Path(f"{number:04d}.jpg") for number in range(parts.first_id, parts.first_id + count)]
    for folder, names in (
        (parts.images, [p.name for p in images]),
        (parts.labels, [parts.label_name(p) for p in images]),
    ):
        missing = sorted(set(names) - {path.name for path in _files(root / folder)})
        if missing:
            raise UserError(
                f"{root / folder} lacks {len(missing):,} of its {count:,} files, {missing[0]} first: "
                f"download CTW1500 from {SOURCE} and unpack it into {root}; {PARTIAL}"
            )
    check_count(root / parts.images, len(_images(root, parts)), count, SOURCE)


def _annotate(line: TextLine, size: Size, label: Path) -> dict | None:
    """A line's COCO annotation without its ids; None if no pixel of it lies inside the image."""
    polygon = line.polygon.ravel().tolist()
    if (line.polygon.max(0) < 0).any() or (line.polygon.min(0) > (size[1], size[0])).any():
        return None
    try:
        mask = mask_fields(to_rle([polygon], size))
    except ValueError as error:
        raise _malformed(label, line.line, str(error)) from error
    if mask["area"] == 0:
        return None
    return {
        "category_id": 1,
        "segmentation": [polygon],
        "area": mask["area"],
        "bbox": mask["bbox"],
        "iscrowd": int(line.text == ILLEGIBLE),
        "text": line.text,
    }


def _images(root: Path, parts: Split) -> list[Path]:
    images = [path for path in _files(root / parts.images) if path.suffix.lower() == ".jpg"]
    if not images:
        raise UserError(f"{root / parts.images} holds no .jpg images: unpack CTW1500 ({SOURCE}) into {root}")
    for path in images:
        if not re.fullmatch(r"[0-9]+", path.stem):
            raise UserError(f"{path} should be named by its number, like {parts.first_id:04d}.jpg")
    return images


def _files(folder: Path) -> list[Path]:
    """The files of a folder in the order of their names, without hidden ones."""
    if not folder.is_dir():
        raise UserError(f"{folder} is missing: download CTW1500 from {SOURCE} and unpack it into {folder.parent}")
    return sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))


def _read_text(path: Path) -> str:
    """A label's text without a byte order mark, with Unix line ends; bytes that are not UTF-8 are replaced."""
    return path.read_bytes().decode("utf-8-sig", errors="replace").replace("\r\n", "\n")


def _polygon(fields: list[str], path: Path, line: int) -> np.ndarray:
    """28 numbers as text, perhaps with an empty field at the end -> int64 (14, 2)."""
    fields = fields[:-1] if fields[-1].strip() == "" else fields
    if len(fields) != 2 * POINTS:
        raise _malformed(path, line, f"{len(fields)} numbers where {2 * POINTS} (14 points) are expected")
    try:
        values = [int(field) for field in fields]
    except ValueError as error:
        raise _malformed(path, line, f"a coordinate is no integer ({error})") from error
    if max(map(abs, values)) > MAX_COORDINATE:
        raise _malformed(path, line, f"a coordinate exceeds {MAX_COORDINATE:,} pixels")
    return np.array(values, dtype=np.int64).reshape(POINTS, 2)


def _malformed(path: Path, line: int, what: str) -> LabelError:
    return LabelError(f"{path}, line {line}: malformed CTW1500 label: {what}", "correct it or unpack it again")
