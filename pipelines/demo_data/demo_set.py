"""Writes the demo set: unlabeled images, labelled images of objects, and images of text in CTW1500's layout.

<out>/complete.json                      what was written: seed, version, counts
<out>/unlabeled/00001.jpg ...
<out>/objects/00001.jpg ...              as many as test images; none of them is among the unlabeled images
<out>/objects/annotations.json           their objects, as COCO JSON
<out>/ctw1500/train_images/0001.jpg ...  ctw1500_train_labels/0001.xml ...
<out>/ctw1500/test_images/1001.jpg ...   gt_ctw1500/0001001.txt ...
<out>/ctw1500/annotations/train.json, test.json
"""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from stage1_proposals.common.errors import UserError
from stage1_proposals.common.files import write_text, writing
from stage2_training.labels import ctw1500
from stage2_training.labels.conversion import numbered, to_json

OBJECTS = "objects/annotations.json"
VERSION = 1  # increased when the same seed gives other data
STAMP = "complete.json"
ILLEGIBLE_SHARE = 0.1  # of the test lines; CTW1500 marks illegible lines in its test set only
# Files beside those that `_write_set` writes: scratch files of a killed process, and pictures drawn by `make data`.
_EXTRA_FILES = re.compile(
    r"ctw1500/annotations/(\.(train|test)\.json\..+\.tmp|(train|test)_check\.png)"
    r"|objects/(\.annotations\.json\..+\.tmp|annotations_check\.png)"
)
_STREAMS = {"unlabeled": 0, "train": 1, "test": 2, "objects": 3}


@dataclass(frozen=True)
class Counts:
    """Number of images of each kind."""

    unlabeled: int = 480
    train: int = 60
    test: int = 60

    @property
    def total(self) -> int:
        return self.unlabeled + self.train + 2 * self.test


def build(out: Path, seed: int, counts: Counts, advance: Callable[[int], None] = lambda images: None) -> bool:
    """Write the demo set to `out`, unless it is there already, complete and of the same seed and version.

    Image i of a kind depends on (seed, kind, i) only. `out` appears under its name when it is complete; a demo set of
    another seed or version is replaced, unless it holds files that are not part of it.

    Args:
        advance: called with the number of images drawn since the last call.

    Returns:
        Whether it was written.

    Raises:
        UserError: `out` holds files that are not part of a demo set, or cannot be written.
    """
    out = out.resolve()
    stamp = {"seed": seed, "version": VERSION, **asdict(counts)}
    if _read_stamp(out) == stamp and all((out / name).is_file() for name in _file_names(counts)):
        return False
    _check_nothing_foreign(out)
    partial = out.with_name(f"{out.name}.partial")
    _remove(partial)
    with writing(partial, "choose another folder"):
        partial.mkdir()
        # The stamp comes first: it distinguishes the rest of an interrupted run from a user's files.
        (partial / STAMP).write_text(json.dumps(stamp, indent=1) + "\n")
        _write_set(partial, seed, counts, advance)
        _remove(out)
        partial.rename(out)
    return True


def _read_stamp(out: Path) -> dict[str, int] | None:
    """The stamp of a demo set; None when `out` is none."""
    try:
        stamp = json.loads((out / STAMP).read_text())
    except (OSError, ValueError):
        return None
    keys = {"seed", "version", *asdict(Counts())}
    is_valid = isinstance(stamp, dict) and stamp.keys() == keys and all(type(value) is int for value in stamp.values())
    return stamp if is_valid else None


def _file_names(counts: Counts) -> Iterator[str]:
    """Every file of a demo set, relative to its folder."""
    yield STAMP
    yield from (f"unlabeled/{number:05d}.jpg" for number in range(1, counts.unlabeled + 1))
    yield from (f"objects/{number:05d}.jpg" for number in range(1, counts.test + 1))
    yield OBJECTS
    for name, split in ctw1500.SPLITS.items():
        for number in range(split.first_id, split.first_id + getattr(counts, name)):
            image = Path(f"{number:04d}.jpg")
            yield f"ctw1500/{split.images}/{image}"
            yield f"ctw1500/{split.labels}/{split.label_name(image)}"
        yield f"ctw1500/annotations/{name}.json"


def _check_nothing_foreign(folder: Path) -> None:
    """Check that a folder, if it exists, holds nothing but the demo set that its stamp describes.

    Raises:
        UserError: naming the first file that is not part of it.
    """
    stamp = _read_stamp(folder)
    if stamp is None:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UserError(
                f"{folder} exists and is no demo set (it has no {STAMP}): move it away or choose another folder"
            )
        return
    files = set(map(Path, _file_names(Counts(*(stamp[key] for key in asdict(Counts()))))))
    known = files.union(*(path.parents for path in files))
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if not (name in known or _EXTRA_FILES.fullmatch(name.as_posix())) or path.is_symlink():
            raise UserError(
                f"{path} is not of the demo set that would be replaced: move it away or choose another folder"
            )


def _remove(folder: Path) -> None:
    """Delete a complete or partial demo set, if it exists; raises as `_check_nothing_foreign`, deleting nothing."""
    _check_nothing_foreign(folder)
    if folder.exists():
        shutil.rmtree(folder)


def _write_set(out: Path, seed: int, counts: Counts, advance: Callable[[int], None]) -> None:
    # Experiments use the names and counts above without drawing, for which matplotlib and SciPy are imported.
    from pipelines.demo_data import object_images, text_images

    folder = _make(out / "unlabeled")
    for index, rng in _streams("unlabeled", seed, counts.unlabeled):
        image, _ = object_images.draw_image(rng)
        _save(image, folder / f"{index + 1:05d}.jpg", rng)
        advance(1)
    root = out / "ctw1500"
    for name, split in ctw1500.SPLITS.items():
        images, labels = _make(root / split.images), _make(root / split.labels)
        for index, rng in _streams(name, seed, getattr(counts, name)):
            share = ILLEGIBLE_SHARE if name == "test" else 0.0
            image, lines = text_images.draw_text_image(rng, illegible_share=share)
            path = images / f"{split.first_id + index:04d}.jpg"
            _save(image, path, rng)
            is_test = name == "test"
            text = text_images.text_label(lines) if is_test else text_images.xml_label(path.name, lines)
            (labels / split.label_name(path)).write_text(text)
            advance(1)
    for name in ctw1500.SPLITS:
        ctw1500.write_annotations(root, name)
    _write_objects(out, seed, counts.test, advance)


def _write_objects(out: Path, seed: int, count: int, advance: Callable[[int], None]) -> None:
    from pipelines.demo_data import object_images

    annotations = out / OBJECTS
    folder = _make(annotations.parent)
    images, objects = [], []
    for index, rng in _streams("objects", seed, count):
        image, masks = object_images.draw_object_image(rng)
        path, number = folder / f"{index + 1:05d}.jpg", index + 1
        _save(image, path, rng)
        images.append({"id": number, "file_name": path.name, "width": image.width, "height": image.height})
        objects += object_images.annotations(number, masks)
        advance(1)
    coco = {"images": images, "annotations": numbered(objects), "categories": object_images.CATEGORIES}
    write_text(annotations, to_json(coco))


def _streams(kind: str, seed: int, count: int) -> Iterator[tuple[int, np.random.Generator]]:
    """Index and random numbers of every image of a kind."""
    for index in range(count):
        yield index, np.random.default_rng((seed, _STREAMS[kind], index))


def _make(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def _save(image: Image.Image, path: Path, rng: np.random.Generator) -> None:
    image.save(path, quality=int(rng.integers(82, 95)))
