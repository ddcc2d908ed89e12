"""The reader of COCO JSON, and masks in all the forms that such files have."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco_mask

from stage1_proposals.common.coco import (
    AnnotationError,
    CocoAnnotation,
    CocoDocument,
    CocoImage,
    read_coco,
    read_images,
    read_masks,
)
from stage1_proposals.common.errors import UserError
from stage1_proposals.common.masks import (
    encode_masks,
    mask_fields,
    to_mask,
    to_rle,
)

SIZE = (12, 16)
IMAGE = {"id": 5, "file_name": "a.png", "height": 12, "width": 16}
SQUARE = [[2, 2, 6, 2, 6, 6, 2, 6]]
OBJECT = {"image_id": 5, "category_id": 3, "segmentation": SQUARE, "bbox": [2, 2, 4, 4], "area": 16.5}


def write(folder: Path, *objects: Any, encoding: str = "utf-8", **changes: Any) -> Path:
    path = folder / "labels.json"
    document = {"images": [IMAGE], "annotations": objects, "categories": [{"id": 3, "name": "cat"}], **changes}
    path.write_text(json.dumps(document), encoding=encoding)
    return path


def first(document: CocoDocument) -> CocoAnnotation:
    return next(document.annotations())


def test_a_document_has_its_images_classes_and_objects(tmp_path: Path) -> None:
    document = read_coco(write(tmp_path, OBJECT, OBJECT | {"iscrowd": 1, "bbox": None, "area": None}))
    assert document.images == (CocoImage(5, "a.png", SIZE),)
    assert document.categories == {3: "cat"}
    assert document.rows == {5: [0, 1]}
    one, other = document.annotations()
    assert (one.image_id, one.category_id, one.iscrowd, one.score) == (5, 3, False, None)
    assert (one.bbox, one.area, one.segmentation) == ([2, 2, 4, 4], 16.5, SQUARE)
    assert (other.bbox, other.area, other.iscrowd) == (None, None, True)
    assert coco_mask.area(one.rle(SIZE)) == 16


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_every_reader_takes_a_byte_order_mark(tmp_path: Path, encoding: str) -> None:
    path = write(tmp_path, OBJECT, encoding=encoding)
    images = read_coco(path).images
    assert read_images(path) == images
    assert read_masks(path)[0] == images


def test_masks_of_others_are_a_data_set_or_a_list_of_results(tmp_path: Path) -> None:
    images, annotations = read_masks(write(tmp_path, OBJECT | {"score": 0.5}, OBJECT | {"image_id": 9}, categories=0))
    assert images == (CocoImage(5, "a.png", SIZE),)
    assert [annotation.score for annotation in annotations] == [0.5]
    (tmp_path / "results.json").write_text(json.dumps([OBJECT | {"score": 1}]))
    images, annotations = read_masks(tmp_path / "results.json")
    assert images is None
    assert [annotation.score for annotation in annotations] == [1.0]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"images": {}}, "not COCO JSON, it has no list `images`"),
        ({"categories": None}, "not COCO JSON, it has no list `categories`"),
        ({"shapes": []}, "is a labelme file, which labels one image"),
        ({"images": [3]}, r"images\[0\] needs a text as `file_name`; correct the file"),
        ({"images": [IMAGE | {"id": "5"}]}, r"images\[0\] \('a\.png'\) needs a whole number of 64 bits as `id`"),
        (
            {"images": [IMAGE | {"width": "16"}]},
            r"images\[0\] \('a\.png'\) has a `width` that is text, not a number \('16'\)",
        ),
        (
            {"images": [IMAGE | {"width": 1.5}]},
            r"images\[0\] \('a\.png'\) has a `width` that is no whole number \('1\.5'\)",
        ),
        ({"images": [IMAGE, IMAGE]}, r"images\[0\] and images\[1\] have the same id 5; correct the file"),
        ({"categories": [{"id": "3", "name": "cat"}]}, r"categories\[0\] \('cat'\) needs a whole number as `id`"),
        ({"categories": [{"id": 3}]}, r"categories\[0\] needs a text as `name`"),
        (
            {"categories": [{"id": 3, "name": "a"}, {"id": 4, "name": "a"}]},
            r"categories\[0\] and categories\[1\] have the same name 'a'",
        ),
        ({"annotations": [3]}, r"annotations\[0\] has no `image_id`; correct"),
        ({"annotations": [{"image_id": 6}]}, r"annotations\[0\] has no `image_id` that is in its images; correct"),
    ],
)
def test_a_malformed_document_is_one_clear_line(tmp_path: Path, change: dict[str, Any], fault: str) -> None:
    with pytest.raises(UserError, match=rf"^{tmp_path}/labels\.json: {fault}"):
        read_coco(write(tmp_path, **change))


def test_rules_may_be_waived_where_they_do_not_matter(tmp_path: Path) -> None:
    path = write(tmp_path, OBJECT | {"image_id": 6}, images=[IMAGE | {"id": "a"}], categories=None)
    document = read_coco(path, categories=False, ignore_unknown_images=True, text_ids=True)
    assert document.images == (CocoImage("a", "a.png", SIZE),)
    assert not list(document.annotations())


@pytest.mark.parametrize("size", [{}, {"height": None, "width": None}, {"height": 12}, {"height": 12.0, "width": 16.0}])
def test_sizes_may_be_missing_and_written_with_a_point(tmp_path: Path, size: dict[str, Any]) -> None:
    path = write(tmp_path, images=[{"id": 5, "file_name": "a.png", **size}])
    assert read_coco(path).images[0].size == (SIZE if size.get("width") else None)


@pytest.mark.parametrize("crowd", ["0", "1", None, 2, [1]])
def test_a_crowd_is_0_or_1(tmp_path: Path, crowd: Any) -> None:
    document = read_coco(write(tmp_path, OBJECT | {"iscrowd": crowd}))
    with pytest.raises(
        AnnotationError, match=r"annotations\[0\] of image 'a\.png': `iscrowd` is neither 0 nor 1 \(.*; c"
    ):
        first(document)


@pytest.mark.parametrize("number", [[1], None, "1", 1.5, True])
def test_what_is_no_class_box_or_area_is_none(tmp_path: Path, number: Any) -> None:
    box = [1, 2, 3, "4"] if number == "1" else number
    document = read_coco(write(tmp_path, OBJECT | {"category_id": number, "bbox": box, "area": math.nan}))
    (annotation,) = document.annotations()
    assert (annotation.category_id, annotation.bbox, annotation.area) == (None, None, None)


@given(arrays(bool, (3, *SIZE)))
def test_all_forms_of_a_mask_are_the_same(masks: np.ndarray) -> None:
    for mask, rle in zip(masks, encode_masks(masks), strict=True):
        flat = mask.ravel(order="F").astype(int)
        counts = np.diff(np.concatenate([[0], np.flatnonzero(np.diff(flat, prepend=0)), [flat.size]])).tolist()
        text = {"size": list(SIZE), "counts": rle["counts"].decode()}
        for form in (rle, text, {"size": list(SIZE), "counts": counts}):
            assert to_rle(form, SIZE) == rle
            assert np.array_equal(to_mask(form, SIZE), mask)


def test_polygons_are_rasterised_by_pycocotools() -> None:
    other = [8.5, 8.5, 10, 8.5, 10, 10.2]
    expected = coco_mask.merge(coco_mask.frPyObjects([*SQUARE, other], *SIZE))
    assert to_rle([*SQUARE, other], SIZE) == expected
    assert to_mask(SQUARE, SIZE).sum() == 16


@pytest.mark.parametrize(
    ("segmentation", "fault"),
    [
        (None, "it is 'None', neither"),
        ([], "no polygon"),
        ([[1, 2, 3, 4]], "a polygon has 4 numbers"),
        ([[1, 2, 3, 4, 5, 6, 7]], "a polygon has 7 numbers"),
        ([["1"] * 6], "no list of numbers"),
        ([[1, 2, 3, 4, 5, math.nan]], "no list of numbers"),
        ([[[1, 2], [3, 4], [5, 6]]], "no list of numbers"),
        ([[1, 2, 3, 4, 5, 6], 7], "no list of numbers"),
        ([[10, 15, 45, 15, 1e12, 65, 10, 65]], "is far outside its image"),
        ([[10, 15, 45, 15, -200_000, 65]], "is far outside its image"),
        ({"size": [1, 1], "counts": [1]}, r"its size is \[1, 1\], not \[12, 16\]"),
        ({"size": [12, 16]}, "cannot be read"),
        ({"size": [12, 16], "counts": 5}, "cannot be read"),
        ({"size": [12, 16], "counts": ["a"]}, "its counts are no whole numbers"),
        ({"size": [12, 16], "counts": [100, 50, 30]}, "its counts add up to 180, not to 12 x 16 pixels"),
        ({"size": [12, 16], "counts": [100, 92, 30]}, "its counts add up to 222, not to 12 x 16 pixels"),
        ({"size": [12, 16], "counts": "d3"}, "run lengths do not add up to the size of the mask"),
        ({"size": [12, 16], "counts": "\u00e9"}, "can't encode"),
        ({"size": [12, 16], "counts": [193, -1]}, "its counts are no whole numbers"),
        ({"counts": [1]}, "cannot be read"),
    ],
)
def test_what_is_no_mask_says_why(tmp_path: Path, segmentation: Any, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        to_rle(segmentation, SIZE)
    document = read_coco(write(tmp_path, OBJECT | {"segmentation": segmentation}))
    with pytest.raises(
        AnnotationError, match=rf"annotations\[0\] of image 'a\.png': `segmentation` is no poly.*{fault}"
    ):
        first(document).rle(SIZE)


numbers = st.integers() | st.floats() | st.sampled_from([0, 1, 5, 12, 16, 10**400])
values = st.recursive(
    st.none() | st.booleans() | numbers | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=7) | st.dictionaries(st.sampled_from(["size", "counts"]), inner),
    max_leaves=12,
)


@settings(deadline=None)
@given(
    image=st.dictionaries(st.sampled_from([*IMAGE]), values, max_size=2),
    annotation=st.dictionaries(st.sampled_from([*OBJECT, "iscrowd", "score"]), values, max_size=3),
    size=st.sampled_from([SIZE, (16, 12), (5, 1), (1, 1), (0, 12)]),
)
def test_any_json_is_read_or_refused_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, image: dict[str, Any], annotation: dict[str, Any], size: tuple[int, int]
) -> None:
    path, refusal = write(tmp_path_factory.getbasetemp(), OBJECT | annotation, images=[IMAGE | image]), ""
    try:
        document = read_coco(path)
        mask_fields(first(document).rle(size))
    except UserError as error:
        refusal = str(error)
    assert "\n" not in refusal
