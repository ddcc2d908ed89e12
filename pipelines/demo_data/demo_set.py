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
import multiprocessing
import os
import re
import shutil
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from stage1_proposals.common.errors import UserError
from stage1_proposals.common.files import write_text, writing
from stage1_proposals.common.system import die_with_parent
from stage2_training.labels import ctw1500
from stage2_training.labels.conversion import numbered, to_json

OBJECTS = "objects/annotations.json"
VERSION = 1  # increased when the same seed gives other data
STAMP = "complete.json"
MIN_IMAGES = 32  # of a process; drawing them takes about a second
ILLEGIBLE_SHARE = 0.1  # of the test lines; CTW1500 marks illegible lines in its test set only
# Files beside those that `_write_set` writes: scratch files of a killed process, and pictures drawn by `make data`.
_EXTRA_FILES = re.compile(
    r"ctw1500/annotations/(\.(train|test)\.json\..+\.tmp|(train|test)_check\.png)"
    r"|objects/(\.annotations\.json\..+\.tmp|annotations_check\.png)"
)
DrawOne = Callable[[np.random.Generator], tuple[Image.Image, Any]]  # an image and what is on it
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
    unfinished = out.with_name(f"{out.name}.partial")
    _remove(unfinished)
    with writing(unfinished, "choose another folder"):
        unfinished.mkdir()
        # The stamp comes first: it distinguishes the rest of an interrupted run from a user's files.
        (unfinished / STAMP).write_text(json.dumps(stamp, indent=1) + "\n")
        _write_set(unfinished, seed, counts, advance)
        _remove(out)
        unfinished.rename(out)
    return True


def _read_stamp(out: Path) -> dict[str, int] | None:
    """The stamp of a demo set; None when `out` is none."""
    with suppress(OSError, ValueError, AttributeError):
        stamp = json.loads((out / STAMP).read_text())
        keys = {"seed", "version", *(field.name for field in fields(Counts))}
        return stamp if stamp.keys() == keys and all(type(value) is int for value in stamp.values()) else None
    return None


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
    """Check that a folder, if it exists, holds only files of the demo set that its stamp describes.

    Raises:
        UserError: names the first other file.
    """
    stamp = _read_stamp(folder)
    if stamp is None:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UserError(
                f"{folder} exists and is no demo set (it has no {STAMP}): move it away or choose another folder"
            )
        return
    files = set(map(Path, _file_names(Counts(*(stamp[field.name] for field in fields(Counts))))))
    known = files.union(*(path.parents for path in files))
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if not (name in known or _EXTRA_FILES.fullmatch(name.as_posix())) or path.is_symlink():
            raise UserError(
                f"{path} is not of the demo set that would be replaced: move it away or choose another folder"
            )


def _remove(folder: Path) -> None:
    """Delete a demo set, if it exists; raises as `_check_nothing_foreign`, deleting nothing."""
    _check_nothing_foreign(folder)
    if folder.exists():
        shutil.rmtree(folder)


def _write_set(out: Path, seed: int, counts: Counts, advance: Callable[[int], None]) -> None:
    # Experiments use the names and counts above without drawing, for which matplotlib and SciPy are imported.
    from pipelines.demo_data import object_images, text_images

    def draw(kind: str, draw_one: DrawOne, count: int, first_name: Path) -> Iterator[tuple[Path, tuple[int, int], Any]]:
        """Draw and save images of a kind; yields their paths, sizes (width, height) and what is on them."""
        first_name.parent.mkdir(parents=True)
        first, digits = int(first_name.stem), len(first_name.stem)
        paths = [first_name.with_stem(f"{first + index:0{digits}d}") for index in range(count)]
        draw_and_save = partial(_draw_and_save, draw_one, seed, _STREAMS[kind])
        for path, (size, content) in zip(paths, apply(draw_and_save, range(count), paths), strict=True):
            yield path, size, content
            advance(1)

    with _processes(counts.total) as apply:
        for _ in draw("unlabeled", object_images.draw_image, counts.unlabeled, out / "unlabeled/00001.jpg"):
            pass
        for kind, split in ctw1500.SPLITS.items():
            labels, is_test = out / "ctw1500" / split.labels, kind == "test"
            labels.mkdir(parents=True)
            draw_one = partial(text_images.draw_text_image, illegible_share=ILLEGIBLE_SHARE if is_test else 0.0)
            first_name = out / "ctw1500" / split.images / f"{split.first_id:04d}.jpg"
            for path, _, lines in draw(kind, draw_one, getattr(counts, kind), first_name):
                text = text_images.text_label(lines) if is_test else text_images.xml_label(path.name, lines)
                (labels / split.label_name(path)).write_text(text)
        for kind in ctw1500.SPLITS:
            ctw1500.write_annotations(out / "ctw1500", kind)
        images, objects = [], []
        first_name = out / "objects/00001.jpg"
        for path, size, masks in draw("objects", object_images.draw_object_image, counts.test, first_name):
            number = int(path.stem)
            images.append({"id": number, "file_name": path.name, "width": size[0], "height": size[1]})
            objects += object_images.annotations(number, masks)
    coco = {"images": images, "annotations": numbered(objects), "categories": object_images.CATEGORIES}
    write_text(out / OBJECTS, to_json(coco))


def _draw_and_save(draw_one: DrawOne, seed: int, stream: int, index: int, path: Path) -> tuple[tuple[int, int], Any]:
    rng = np.random.default_rng((seed, stream, index))
    image, content = draw_one(rng)
    image.save(path, quality=int(rng.integers(82, 95)))
    return image.size, content


@contextmanager
def _processes(images: int) -> Iterator[Callable[..., Iterable[Any]]]:
    """`map` for drawing so many images: in a process per core, where that pays."""
    processes = min(os.cpu_count() or 1, images // MIN_IMAGES)
    if processes < 2:
        yield map
        return
    # Forked, they need not import what draws.
    with ProcessPoolExecutor(processes, multiprocessing.get_context("fork"), _prepare_process) as executor:
        try:
            yield partial(executor.map, chunksize=4)
        except BaseException:
            executor.shutdown(cancel_futures=True)
            raise


def _prepare_process() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that draws with them ends them
    die_with_parent()
