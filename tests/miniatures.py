"""Miniatures of labelled sets, in the layouts and formats in which they are published or written by others."""

import base64
import io
import json
import runpy
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIZE = (48, 64)  # height, width
CONFIGS = Path(__file__).parents[1] / "configs"
# Without MMDetection, which takes seconds to import.
COCO_CLASSES = runpy.run_path(str(CONFIGS / "datasets" / "coco10.py"))["metainfo"]["classes"]


def image(number: int, path: Path) -> Path:
    """An image of noise, other for each number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(number).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return path


def coco(root: Path, train: int = 12, val: int = 2, unlabeled: int = 0) -> Path:
    """COCO 2017: images named by their ids, two objects each but for every fourth, a group in the first."""
    for split, first, count in (("train2017", 1, train), ("val2017", 501, val)):
        images, annotations = [], []
        for number in range(first, first + count):
            name = image(number, root / split / f"{number:012d}.jpg").name
            images.append({"license": 1, "file_name": name, "height": SIZE[0], "width": SIZE[1], "id": number})
            for x in (4, 34) if number % 4 else ():
                annotations.append(
                    {
                        "segmentation": [[x, 8.5, x + 20.25, 8.5, x + 20.25, 30, x, 30]],
                        "area": 435.375,
                        "iscrowd": 0,
                        "image_id": number,
                        "bbox": [x, 8.5, 20.25, 21.5],
                        "category_id": (1, 90)[x > 4],
                        "id": 1000 + len(annotations),
                    }
                )
        counts = [0, SIZE[0] * 10, SIZE[0] * (SIZE[1] - 10)]
        group = {"size": list(SIZE), "counts": counts}
        shape = {"segmentation": group, "area": 480, "bbox": [0, 0, 10, 48], "iscrowd": 1}
        annotations.append({**shape, "image_id": first, "category_id": 1, "id": 9})
        # Ids have gaps, as COCO's own: here they end at 90.
        ids = [*range(1, 80), 90]
        categories = [
            {"supercategory": "x", "id": id_, "name": name} for id_, name in zip(ids, COCO_CLASSES, strict=True)
        ]
        labels = {"info": {}, "images": images, "annotations": annotations, "categories": categories}
        path = root / "annotations" / f"instances_{split}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(labels))
    for number in range(unlabeled):
        image(number, root / "unlabeled2017" / f"{number:012d}.jpg")
    return root


def instance_map() -> np.ndarray:
    """Cityscapes' numbers: road, two cars, a rider, a group of people, a caravan and the sky; uint16 (H, W)."""
    numbers = np.full(SIZE, 7, np.uint16)
    numbers[4:20, 4:24] = 26000
    numbers[10:26, 14:34] = 26001
    numbers[30:44, 40:50] = 25000
    numbers[30:40, 2:12] = 24
    numbers[30:40, 20:30] = 29000
    numbers[:4] = 23
    return numbers


def cityscapes(root: Path, images: int = 2) -> Path:
    """Cityscapes' fine annotations: two cities in each split with `images` each."""
    for split, cities in (("train", ("aachen", "bochum")), ("val", ("lindau", "munster"))):
        for city in cities:
            for number in range(images):
                stem = f"{city}_{number:06d}_000019"
                image(number, root / "leftImg8bit" / split / city / f"{stem}_leftImg8bit.png")
                label = root / "gtFine" / split / city / f"{stem}_gtFine_instanceIds.png"
                label.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(instance_map()).save(label)
    return root


def ctw1500(root: Path, train: int = 2, test: int = 1) -> Path:
    """CTW1500: train labels in XML, test labels in text."""
    polygon = "4,8,12,8,20,8,28,8,36,8,44,8,52,8,52,24,44,24,36,24,28,24,20,24,12,24,4,24"
    xml = f"<Annotations><image file='x'><box><label>A</label><segs>{polygon}</segs></box></image></Annotations>"
    for name in ("ctw1500_train_labels", "gt_ctw1500"):
        (root / name).mkdir(parents=True)
    for number in range(1, 1 + train):
        image(number, root / "train_images" / f"{number:04d}.jpg")
        (root / "ctw1500_train_labels" / f"{number:04d}.xml").write_text(xml)
    for number in range(1001, 1001 + test):
        image(number, root / "test_images" / f"{number}.jpg")
        (root / "gt_ctw1500" / f"000{number}.txt").write_text(f"{polygon},####A\n")
    return root


def shape(kind: str, label: str, points: list, **more: Any) -> dict[str, Any]:
    """A labelme shape."""
    return {"label": label, "points": points, "group_id": None, "shape_type": kind, "flags": {}, "mask": None, **more}


def mask_shape(label: str, x: int, y: int, mask: np.ndarray) -> dict[str, Any]:
    """A labelme shape of a mask whose first pixel is (x, y)."""
    png = io.BytesIO()
    Image.fromarray(mask.astype(bool)).save(png, "PNG")
    corners = [[float(x), float(y)], [float(x + mask.shape[1] - 1), float(y + mask.shape[0] - 1)]]
    return shape("mask", label, corners, mask=base64.b64encode(png.getvalue()).decode())


def labelme_file(folder: Path, number: int, shapes: list[dict[str, Any]], **more: Any) -> Path:
    """An image in `<folder>/images` and its labelme file in `<folder>/labels`, as labelme writes it on Windows."""
    name = image(number, folder / "images" / f"{number}.png").name
    document = {"version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": f"..\\images\\{name}"}
    document |= {"imageData": None, "imageHeight": SIZE[0], "imageWidth": SIZE[1], **more}
    path = folder / "labels" / f"{number}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(document))
    return path


def labelme(folder: Path, images: int = 5) -> Path:
    """Images with a cat and a dog each."""
    for number in range(images):
        cat = shape("polygon", "cat", [[4, 4], [30, 4.5], [28, 28], [5, 30]])
        labelme_file(folder, number, [shape("rectangle", "dog", [[60, 40], [36, 10]]), cat])
    return folder


def yolo(folder: Path, train: int = 4, val: int = 1) -> Path:
    """A YOLO segmentation set of Ultralytics: a triangle of `dog` and a rectangle of `cat` in each image; data.yaml."""
    for split, first, count in (("train", 0, train), ("val", train, val)):
        for number in range(first, first + count):
            image(number, folder / "images" / split / f"{number}.png")
            labels = folder / "labels" / split / f"{number}.txt"
            labels.parent.mkdir(parents=True, exist_ok=True)
            labels.write_text("1 0.1 0.1 0.5 0.1 0.1 0.5\n0 0.5 0.5 0.75 0.5 0.75 0.75 0.5 0.75\n")
    path = folder / "data.yaml"
    lines = ["path: .", "train: images/train", "val: images/val" if val else "", "names: [cat, dog]"]
    path.write_text("\n".join(filter(None, lines)) + "\n")
    return path
