"""The reader of COCO JSON, and masks in all the forms that such files have."""

import gzip
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
    path = write(tmp_path, OBJECT | {"score": 0.5}, OBJECT | {"image_id": 9}, categories=0)
    images, annotations, remarks = read_masks(path)
    assert images == (CocoImage(5, "a.png", SIZE),)
    assert [annotation.score for annotation in annotations] == [0.5]
    assert remarks == (
        f"{path}: 1 of 2 annotations are of unknown images and left out; the first, annotations[1], has the "
        "`image_id` 9",
    )
    (tmp_path / "results.json").write_text(json.dumps([OBJECT | {"score": 1}]))
    images, annotations, remarks = read_masks(tmp_path / "results.json")
    assert (images, remarks) == (None, ())
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
        (
            {"annotations": [{"image_id": 6}, {"image_id": 5}, {"image_id": "b"}]},
            r"annotations\[0\] has no `image_id` that is in its images, but 6; 2 of 3 annotations are of unknown im",
        ),
        (
            {"annotations": [{"image_id": 1.0}]},
            r"annotations\[0\] has an `image_id` that is no whole number of 64 bits \(1\.0\); correct",
        ),
        ({"categories": [{"id": 3, "name": "  "}]}, r"categories\[0\] has an empty `name`; correct the file"),
        (
            {"annotations": [OBJECT | {"id": 4}, OBJECT, OBJECT | {"id": 4}]},
            r"annotations\[0\] and annotations\[2\] are the same object \(`id` 4\); name each once",
        ),
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
    box = [1, 2, 3] if number == "1" else number
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
        (None, "there is none, and a box alone is no mask"),
        ("polygons", "it is 'polygons', neither"),
        ([], "it is empty, and a box alone is no mask"),
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
        ({"size": [12, 16], "counts": "~~"}, "its counts are no compressed run lengths"),
        ({"size": [12, 16], "counts": "P6P"}, "its counts are no compressed run lengths"),
        ({"size": [12, 16], "counts": "ooooooo0"}, "its counts are no compressed run lengths"),
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


@pytest.mark.parametrize(
    "size", [{"height": 0, "width": 16}, {"height": -1, "width": -1}, {"height": 12, "width": None}]
)
def test_sides_that_a_program_does_not_know_are_not_stated(tmp_path: Path, size: dict[str, Any]) -> None:
    path = write(tmp_path, images=[IMAGE | size])
    assert read_coco(path).images[0].size is None
    assert read_images(path)[0].size is None
    masks = read_masks(path)[0]
    assert masks is not None
    assert masks[0].size is None


@pytest.mark.parametrize(("name", "other"), [("a.jpg", "a.jpg"), ("a.jpg", "./a.jpg"), ("x/a.jpg", "x\\a.jpg")])
def test_every_reader_refuses_an_image_that_is_named_twice(tmp_path: Path, name: str, other: str) -> None:
    path = write(tmp_path, images=[IMAGE | {"file_name": name}, IMAGE | {"id": 6, "file_name": other}])
    for read in (read_coco, read_images, read_masks):
        with pytest.raises(UserError, match=r"images\[0\] and images\[1\] are the same image \('.*a\.jpg'\)"):
            read(path)


@pytest.mark.parametrize("name", ["", ".", "a\0b.jpg", "\ud800.jpg"])
def test_every_reader_refuses_what_is_no_file_name(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, images=[IMAGE | {"file_name": name}])
    for read in (read_coco, read_images, read_masks):
        with pytest.raises(UserError, match=r"images\[0\] is no file name \('"):
            read(path)


RUNS_AS_POLYGON = [[7, 1, 10, 2, 9, 4, 8, 3, 2, 5]]


def test_a_mask_that_contradicts_its_own_box_and_area_is_refused(tmp_path: Path) -> None:
    stated = {"segmentation": RUNS_AS_POLYGON, "bbox": [0, 6, 14, 5], "area": 68}
    with pytest.raises(
        AnnotationError,
        match=r"annotation 4 of image 'a\.png': `segmentation` contradicts `bbox` and `area`: it covers 1\d pixels in "
        r"the box \[.*\], not 68 in \[0, 6, 14, 5\]; correct the file",
    ):
        first(read_coco(write(tmp_path, OBJECT | stated | {"id": 4}))).rle(SIZE)


@pytest.mark.parametrize(
    "stated",
    [
        {"bbox": [0, 6, 14, 5]},  # another form of box: the area agrees
        {"area": 160},  # of the box, as Roboflow writes it
        {"bbox": [2, 2, 6, 6], "area": 160},  # two corners
        {"bbox": [1.5, 1.5, 6, 6], "area": 40},
        {"bbox": [0, 6, 14, 5], "area": 0},
    ],
)
def test_a_mask_that_agrees_with_its_box_or_its_area_is_taken(tmp_path: Path, stated: dict[str, Any]) -> None:
    annotation = first(read_coco(write(tmp_path, OBJECT | stated)))
    assert coco_mask.area(annotation.rle(SIZE)) == 16


def test_polygons_may_reach_over_the_edges_by_the_longer_side(tmp_path: Path) -> None:
    assert to_mask([[-16, -16, 32, -16, 32, 28, -16, 28]], SIZE).all()
    for x, y in ((-16.5, 0), (32.5, 0), (0, -16.5), (0, 28.5)):
        with pytest.raises(ValueError, match=r"the coordinate -?[0-9.]+ is far outside its image"):
            to_rle([[0, 0, 9, 0, x, y]], SIZE)


def test_masks_of_images_of_an_absurd_size_are_refused_at_once() -> None:
    with pytest.raises(ValueError, match="its image has 1,000,000,000,000,000,000 pixels, more than 200,000,000"):
        to_rle(SQUARE, (10**9, 10**9))


@pytest.mark.parametrize(
    ("flags", "ignored"), [({"ignore": 1}, True), ({"ignore": 0}, False), ({"iscrowd": True}, True)]
)
def test_ignored_objects_are_crowds(tmp_path: Path, flags: dict[str, Any], ignored: bool) -> None:
    assert first(read_coco(write(tmp_path, OBJECT | flags))).iscrowd is ignored


def test_a_supercategory_without_objects_is_left_out_and_said(tmp_path: Path) -> None:
    cat = {"id": 3, "name": "cat", "supercategory": "animals"}
    for root in ("animals", "cat"):  # a project may be named like its only class
        categories = [{"id": 0, "name": root, "supercategory": "none"}, cat | {"supercategory": root}]
        document = read_coco(write(tmp_path, OBJECT, categories=categories))
        assert document.categories == {3: "cat"}
        assert document.remarks == (
            f"{tmp_path}/labels.json: category '{root}' is left out: it is the supercategory of others, and no object "
            "is of it",
        )
    categories = [{"id": 3, "name": "animals"}, cat | {"id": 4}]
    assert read_coco(write(tmp_path, OBJECT, categories=categories)).categories == {3: "animals", 4: "cat"}
    own = [{"id": 3, "name": "person", "supercategory": "person"}]
    assert read_coco(write(tmp_path, categories=own)).categories == {3: "person"}


def test_blanks_around_a_class_are_not_of_its_name(tmp_path: Path) -> None:
    assert read_coco(write(tmp_path, categories=[{"id": 3, "name": " cat "}])).categories == {3: "cat"}


def test_what_via_writes_is_read(tmp_path: Path) -> None:
    """Images' ids as text in annotations, and a polygon without a list around it."""
    annotation = first(read_coco(write(tmp_path, OBJECT | {"image_id": "5", "segmentation": SQUARE[0]})))
    assert (annotation.image_id, annotation.segmentation) == (5, SQUARE)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ({"_via_settings": {}, "_via_img_metadata": {}}, "is a project of VIA; export its annotations as COCO"),
        ({"a.jpg12": {"filename": "a.jpg", "regions": []}}, "is labels in VIA's own format; export them as COCO"),
        (
            [{"id": 1, "annotations": [], "predictions": []}],
            "is labels in Label Studio's own format; export them as COCO",
        ),
    ],
)
def test_other_formats_are_named(tmp_path: Path, content: Any, what: str) -> None:
    (tmp_path / "labels.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=f"labels.json: {what}"):
        read_coco(tmp_path / "labels.json")


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ({"shapes": [], "imagePath": "a.jpg"}, "is a labelme file, which labels one image"),
        ({"a.jpg12": {"filename": "a.jpg", "regions": []}}, "is labels in VIA's own format"),
        ([{"id": 1, "annotations": [], "predictions": []}], "is labels in Label Studio's own format"),
    ],
)
def test_an_image_list_of_another_format_is_named(tmp_path: Path, content: Any, what: str) -> None:
    (tmp_path / "labels.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=f"labels.json: {what}"):
        read_images(tmp_path / "labels.json")


@pytest.mark.parametrize("compressed", [True, False])
def test_what_is_not_utf_8_says_what_to_do(tmp_path: Path, compressed: bool) -> None:
    path = write(tmp_path, OBJECT)
    path.write_bytes(gzip.compress(path.read_bytes()) if compressed else '{"a": "\u00e4"}'.encode("latin-1"))
    for read in (read_coco, read_images, read_masks):
        with pytest.raises(
            UserError, match=r"labels\.json: not JSON: it is not UTF-8 text; save it as UTF-8 \(unpack it, if it is"
        ):
            read(path)


@pytest.mark.parametrize(
    ("stated", "fault"),
    [
        ({"area": "2000"}, r"`area` is text, not numbers \('2000'\)"),
        ({"bbox": [2, 2, 4, "4"]}, r"`bbox` is text, not numbers \('4'\)"),
    ],
)
def test_numbers_as_text_are_refused(tmp_path: Path, stated: dict[str, Any], fault: str) -> None:
    document = read_coco(write(tmp_path, OBJECT | stated))
    with pytest.raises(AnnotationError, match=rf"annotations\[0\] of image 'a\.png': {fault}; correct the file"):
        first(document)


@pytest.mark.parametrize(
    ("number", "shown"), [("1", "'1'"), (1.0, "1.0"), (0, "0"), (None, "missing"), ([3], r"\[3\]")]
)
def test_a_category_that_the_file_lacks_is_shown(tmp_path: Path, number: Any, shown: str) -> None:
    categories = [{"id": row, "name": str(row)} for row in range(3, 9)]
    document = read_coco(write(tmp_path, OBJECT | {"category_id": number}, categories=categories))
    with pytest.raises(
        AnnotationError, match=rf"not in the file's categories: it is {shown}, not one of 3, 4, 5, 6, 7, \.\.\.; cor"
    ):
        document.check_category(first(document))


@pytest.mark.parametrize(("number", "image_id"), [("5", 5), (5, "5"), ("5", "5")])
def test_ids_are_matched_as_numbers_and_as_text(tmp_path: Path, number: int | str, image_id: int | str) -> None:
    path = write(tmp_path, OBJECT | {"image_id": image_id}, images=[IMAGE | {"id": number}])
    _, annotations, remarks = read_masks(path)
    assert ([one.image_id for one in annotations], remarks) == ([number], ())


def test_different_objects_may_share_an_id(tmp_path: Path) -> None:
    document = read_coco(write(tmp_path, OBJECT | {"id": 4}, OBJECT | {"id": 4, "iscrowd": 1}, OBJECT, OBJECT))
    assert len(list(document.annotations())) == 4


def test_masks_of_which_none_is_of_the_files_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        UserError,
        match=r"none of its 2 annotations is of one of its images: annotations\[0\] has the `image_id` 1005, "
        r"images\[0\] the `id` 5; correct the file",
    ):
        read_masks(write(tmp_path, *[OBJECT | {"image_id": 1005}] * 2))


@pytest.mark.parametrize(
    ("stated", "box"), [([1.5, 2, 4, 4], [1.5, 2, 4, 4]), ([2, 2, 9, 9], [2, 2, 4, 4]), (None, [2, 2, 4, 4])]
)
def test_a_box_lies_around_its_mask_or_is_the_masks(tmp_path: Path, stated: Any, box: list[float]) -> None:
    annotation = first(read_coco(write(tmp_path, OBJECT | {"bbox": stated})))
    assert annotation.box_around([2, 2, 4, 4]) == box
