"""The fast evaluation equals pycocotools on random labels and detections."""

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from stage1_proposals.common.coco import CocoImage, read_coco
from stage1_proposals.common.coco_scores import KINDS, SIZES, evaluate, labelled_objects
from stage1_proposals.common.errors import UserError

SIDE = 12
CLASSES = (2, 7, 9)

areas = st.sampled_from([None, 32.0**2, 32.0**2 - 1, 96.0**2, 2e4])  # None: the mask's; else at COCO's limits
sides = st.tuples(st.integers(0, SIDE - 1), st.integers(0, SIDE))
rectangles = st.tuples(sides, sides)  # some without a pixel
objects = st.tuples(rectangles, st.sampled_from(CLASSES), areas, st.sampled_from([0, 0, 1]))
detections = st.tuples(rectangles, st.sampled_from(CLASSES), areas, st.sampled_from([0.25, 0.5, 0.75]), st.booleans())
times = st.sampled_from([1, 1, 1, 30])  # 30: more detections than count
drawn_images = st.tuples(
    st.lists(objects, max_size=4), st.tuples(st.lists(detections, max_size=8), times).map(lambda two: two[0] * two[1])
)


def rectangle(spans: Any) -> dict[str, Any]:
    """Mask as RLE and what follows from it."""
    (y, height), (x, width) = spans
    mask = np.zeros((SIDE, SIDE), np.uint8, order="F")
    mask[y : y + height, x : x + width] = 1
    rle = coco_mask.encode(mask)
    return {"segmentation": rle, "bbox": coco_mask.toBbox(rle).tolist(), "area": float(coco_mask.area(rle))}


def indexed(images: list, annotations: list, box: bool) -> COCO:
    coco = COCO()
    numbered = [{**one, "id": number} for number, one in enumerate(annotations, 1)]
    for one in numbered if box else ():
        one["area"] = one["bbox"][2] * one["bbox"][3]
    categories = [{"id": number} for number in CLASSES]
    coco.dataset = {"images": images, "annotations": numbered, "categories": categories}
    coco.createIndex()
    return coco


@settings(deadline=None, max_examples=30)
@given(
    drawn=st.lists(drawn_images, min_size=1, max_size=3), kind=st.sampled_from([*KINDS]), class_agnostic=st.booleans()
)
def test_it_equals_pycocotools(drawn: list[Any], kind: str, class_agnostic: bool) -> None:
    images = [{"id": number, "height": SIDE, "width": SIDE} for number in range(len(drawn))]
    truth, found = [], []
    for image, (labelled, detected) in enumerate(drawn):
        for spans, category, area, crowd in labelled:
            each = rectangle(spans) | {"image_id": image, "category_id": category, "iscrowd": crowd}
            truth.append(each | ({} if area is None else {"area": area}))
        for spans, category, area, score, shifted in detected:
            each = rectangle(spans) | {"image_id": image, "category_id": category, "score": score}
            each["bbox"][0] += 0.3 * shifted
            found.append(each | ({} if area is None else {"area": area}))
    typed = [CocoImage(image["id"], "", (SIDE, SIDE)) for image in images]
    ours = evaluate(typed, truth, found, kind, CLASSES[:2], class_agnostic)

    with contextlib.redirect_stdout(io.StringIO()):
        theirs = COCOeval(indexed(images, truth, False), indexed(images, found, kind == "box"), KINDS[kind])
        theirs.params.catIds = list(CLASSES[:2])
        theirs.params.useCats = int(not class_agnostic)
        theirs.params.maxDets = [1, 20, 100]
        theirs.evaluate()
        theirs.accumulate()
        theirs.summarize()
    np.testing.assert_allclose(ours.precision, theirs.eval["precision"][..., 2], rtol=0, atol=1e-12)
    np.testing.assert_allclose(ours.recall, theirs.eval["recall"][..., 1:], rtol=0, atol=1e-12)
    stats = [ours.average_precision(), ours.average_precision(0.5), ours.average_precision(0.75)]
    stats += [ours.average_precision(size=size) for size in SIZES[1:]]
    stats += [ours.average_recall(), ours.average_recall(detections=100)]
    assert stats == pytest.approx([*theirs.stats[:6], *theirs.stats[7:9]], rel=0, abs=1e-12)


def test_the_objects_of_a_file_have_masks_as_pycocotools_draws_them(tmp_path: Path) -> None:
    polygon = [1.5, 2, 9, 3.2, 4, 11]
    common = {"image_id": 1, "category_id": 7, "bbox": (1, 2, 8, 9), "area": 30}
    uncompressed = {"size": [SIDE, SIDE], "counts": [5, 20, 119]}
    both = [common | {"segmentation": [polygon]}, common | {"segmentation": uncompressed, "iscrowd": 1, "id": 0}]
    images = [{"id": 1, "file_name": "1.png", "height": SIDE, "width": SIDE}]
    (tmp_path / "a.json").write_text(json.dumps({"images": images, "annotations": both}))
    first, second = labelled_objects(read_coco(tmp_path / "a.json", categories=False))
    assert first["segmentation"] == coco_mask.frPyObjects([polygon], SIDE, SIDE)[0]
    assert (first["bbox"], first["area"], first["iscrowd"], second["iscrowd"]) == ([1, 2, 8, 9], 30, 0, 1)
    assert coco_mask.area(second["segmentation"]) == 20


def test_images_of_unknown_size_have_no_objects_to_compare_with(tmp_path: Path) -> None:
    document = {"images": [{"id": 1, "file_name": "1.png", "height": SIDE}], "annotations": []}
    (tmp_path / "a.json").write_text(json.dumps(document))
    with pytest.raises(UserError, match=r"a\.json: image '1\.png' has no `height` and `width`"):
        labelled_objects(read_coco(tmp_path / "a.json", categories=False))


def test_what_a_file_does_not_state_is_taken_from_the_mask(tmp_path: Path) -> None:
    square = [2, 2, 6, 2, 6, 6, 2, 6]
    document = {"images": [{"id": 1, "file_name": "1.png"}], "annotations": [{"image_id": 1, "segmentation": [square]}]}
    (tmp_path / "a.json").write_text(json.dumps(document))
    (found,) = labelled_objects(read_coco(tmp_path / "a.json", categories=False), {1: (SIDE, SIDE)})
    assert (found["bbox"], found["area"]) == ([2, 2, 4, 4], 16)


@pytest.mark.parametrize("category", [None, [7], 8])
def test_an_object_of_no_class_is_refused(tmp_path: Path, category: Any) -> None:
    image = {"id": 1, "file_name": "1.png", "height": SIDE, "width": SIDE}
    annotation = {"id": 5, "image_id": 1, "category_id": category, "segmentation": [[2, 2, 6, 2, 6, 6]]}
    document = {"images": [image], "annotations": [annotation], "categories": [{"id": 7, "name": "a"}]}
    (tmp_path / "a.json").write_text(json.dumps(document))
    with pytest.raises(
        UserError, match=r"annotation 5 of image '1\.png': `category_id` is not in the file's categories: it.*one of 7"
    ):
        labelled_objects(read_coco(tmp_path / "a.json"))


def test_a_box_of_two_corners_counts_as_the_masks(tmp_path: Path) -> None:
    """Training reads it so; compared as a box, it would be another one."""
    square = {"image_id": 1, "segmentation": [[4, 4, 8, 4, 8, 8, 4, 8]], "bbox": [4, 4, 8, 8]}
    empty = square | {"segmentation": [[18, 4, 19, 4, 19, 8]], "bbox": [9, 4, 1, 4], "id": 2}
    image = {"id": 1, "file_name": "1.png", "height": SIDE, "width": SIDE}
    (tmp_path / "a.json").write_text(json.dumps({"images": [image], "annotations": [square, empty]}))
    found = labelled_objects(read_coco(tmp_path / "a.json", categories=False))
    assert [one["bbox"] for one in found] == [[4, 4, 4, 4], [9, 4, 1, 4]]
