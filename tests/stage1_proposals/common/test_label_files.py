"""Label files: what the programs that they are for read from them, and that none is ever changed."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from stage1_proposals.common.errors import UserError
from stage1_proposals.common.label_files import WRITERS, ImageLabels, NewFiles
from stage1_proposals.common.masks import encode_masks
from stage2_training.labels.conversion import numbered
from stage2_training.labels.labelme import convert_labelme
from tests import miniatures
from tests.miniatures import SIZE

NAMES = ["cat", 'dog: "a" 犬']


def masks() -> np.ndarray:
    """A square, a ring with a part apart from it, and a triangle at the image's corner, bool (3, H, W)."""
    made = np.zeros((3, *SIZE), bool)
    made[0, 4:14, 20:31] = True
    made[1, 10:40, 10:40] = made[1, 2:8, 50:60] = True
    made[1, 20:30, 15:35] = False
    made[2] = np.add.outer(np.arange(SIZE[0]), np.arange(SIZE[1])) < 20
    return made


def labels(name: str = "a/1.png", image_id: int = 7) -> ImageLabels:
    counts = [rle["counts"] for rle in encode_masks(masks())]
    return ImageLabels(image_id, name, SIZE, counts, [0.75, 0.5, 0.25], [1, 0, 1])


def empty(name: str = "b.png", image_id: int = 8) -> ImageLabels:
    return ImageLabels(image_id, name, SIZE, [], [], [])


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder of two images."""
    miniatures.image(1, tmp_path / "photos" / "a" / "1.png")
    miniatures.image(2, tmp_path / "photos" / "b.png")
    return tmp_path / "photos"


def write(kind: str, out: Path, images: Path, *labelled: ImageLabels) -> NewFiles:
    files = NewFiles()
    writer = WRITERS[kind](out, images, NAMES, files)
    for one in labelled:
        writer.write(one)
    writer.close()
    return files


def same(found: np.ndarray, expected: np.ndarray) -> bool:
    return bool((found & expected).sum() / (found | expected).sum() >= 0.98)


def test_coco_keeps_masks_scores_and_classes(tmp_path: Path, images: Path) -> None:
    write("coco", tmp_path, images, labels(), empty())
    coco = COCO(str(tmp_path / "coco.json"))
    assert coco.getImgIds() == [7, 8]
    annotations = coco.loadAnns(coco.getAnnIds(7))
    assert [(one["score"], coco.cats[one["category_id"]]["name"]) for one in annotations] == [
        (0.75, NAMES[1]),
        (0.5, NAMES[0]),
        (0.25, NAMES[1]),
    ]
    assert np.array_equal([coco.annToMask(one) for one in annotations], masks())


def test_our_reader_of_labelmes_files_finds_the_same_objects(tmp_path: Path, images: Path) -> None:
    write("labelme", tmp_path / "out", images, labels(), empty())
    converted = convert_labelme(tmp_path / "out" / "labelme", None).coco
    assert [os.path.realpath(tmp_path / "out" / "labelme" / image["file_name"]) for image in converted["images"]] == [
        str(images / "a" / "1.png"),
        str(images / "b.png"),
    ]
    api = COCO()
    api.dataset = {**converted, "annotations": numbered(converted["annotations"])}
    api.createIndex()
    found = sorted(api.dataset["annotations"], key=lambda one: one["area"], reverse=True)
    expected = sorted(zip(masks(), labels().classes, strict=True), key=lambda pair: pair[0].sum(), reverse=True)
    assert [api.cats[one["category_id"]]["name"] for one in found] == [NAMES[index] for _, index in expected]
    assert all(same(api.annToMask(one).astype(bool), mask) for one, (mask, _) in zip(found, expected, strict=True))


def test_a_labelme_file_has_what_labelme_requires(tmp_path: Path, images: Path) -> None:
    write("labelme", tmp_path, images, labels())
    path = tmp_path / "labelme" / "a" / "1.json"
    document = json.loads(path.read_text())
    assert document.keys() == {
        "version",
        "flags",
        "shapes",
        "imagePath",
        "imageData",
        "imageHeight",
        "imageWidth",
    }
    assert (path.parent / document["imagePath"]).samefile(images / "a" / "1.png")
    assert not Path(document["imagePath"]).is_absolute()
    assert (document["imageHeight"], document["imageWidth"]) == SIZE
    groups = [shape["group_id"] for shape in document["shapes"]]
    assert groups == [None, 1, 1, None]
    assert document["shapes"][0]["description"] == "score 0.750"


def test_yolo_has_an_object_a_line_and_the_layout_of_ultralytics(tmp_path: Path, images: Path) -> None:
    write("yolo", tmp_path, images, labels(), empty())
    folder = tmp_path / "yolo"
    listed = (folder / "images.txt").read_text().split()
    assert listed == ["./images/a/1.png", "./images/b.png"]
    label_files = [folder / name.replace("/images/", "/labels/").replace(".png", ".txt") for name in listed]
    assert all((folder / name).is_file() for name in listed)
    assert label_files[1].read_text() == ""
    lines = [line.split() for line in label_files[0].read_text().splitlines()]
    assert [int(line[0]) for line in lines] == [1, 0, 1]
    for line, mask in zip(lines, masks(), strict=True):
        points = np.array(line[1:], float).reshape(-1, 2)
        assert points.min() >= 0
        assert points.max() <= 1
        polygon = (points * SIZE[::-1]).ravel().tolist()
        assert same(coco_mask.decode(coco_mask.frPyObjects([polygon], *SIZE))[..., 0].astype(bool), mask)


def test_data_yaml_names_the_classes(tmp_path: Path, images: Path) -> None:
    import yaml

    write("yolo", tmp_path, images, labels())
    document = yaml.safe_load((tmp_path / "yolo" / "data.yaml").read_text(encoding="utf-8"))
    assert document == {"train": "images.txt", "val": "images.txt", "names": dict(enumerate(NAMES))}


@pytest.mark.parametrize("kind", WRITERS)
def test_no_file_is_changed_and_what_is_missing_is_written(kind: str, tmp_path: Path, images: Path) -> None:
    files = write(kind, tmp_path / "out", images, labels(), empty())
    paths = sorted(path for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert (files.written, files.unchanged, files.kept) == (len(paths), 0, [])
    content = paths[0].read_bytes()
    paths[0].unlink()
    files = write(kind, tmp_path / "out", images, labels(), empty())
    assert (files.written, files.unchanged, files.kept) == (1, len(paths) - 1, [])
    assert paths[0].read_bytes() == content
    paths[0].write_text("corrected")
    files = write(kind, tmp_path / "out", images, labels(), empty())
    assert (files.written, files.unchanged, files.kept) == (0, len(paths) - 1, [paths[0]])
    assert paths[0].read_text() == "corrected"


@pytest.mark.parametrize("kind", ["labelme", "yolo"])
def test_two_images_with_one_label_file_are_refused(kind: str, tmp_path: Path, images: Path) -> None:
    with pytest.raises(UserError, match=r"b\.\w+: would hold the labels of 'b.png' and of 'b.jpg'; rename one"):
        write(kind, tmp_path, images, empty("b.png"), empty("b.jpg"))


def test_the_link_of_yolo_is_not_changed(tmp_path: Path, images: Path) -> None:
    write("yolo", tmp_path, images, empty())
    write("yolo", tmp_path, images, empty())
    with pytest.raises(UserError, match=r"yolo/images: is not the folder .*photos/a of the images; choose another OUT"):
        write("yolo", tmp_path, images / "a", empty())


@pytest.mark.parametrize("kind", WRITERS)
def test_a_folder_that_cannot_be_made_is_named(kind: str, tmp_path: Path, images: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file/.*: cannot be written \((Not a directory|File exists)\)"):
        write(kind, tmp_path / "file", images, labels())


def test_names_that_are_not_utf8_are_written(tmp_path: Path, images: Path) -> None:
    name = os.fsdecode(b"\xff.png")
    (images / "b.png").rename(images / name)
    for kind in WRITERS:
        write(kind, tmp_path, images, empty(name))
    assert b"./images/\xff.png" in (tmp_path / "yolo" / "images.txt").read_bytes()
    document = json.loads((tmp_path / "labelme" / os.fsdecode(b"\xff.json")).read_text())
    assert (tmp_path / "labelme" / document["imagePath"]).is_file()
