import json

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from stage1_proposals.common.errors import UserError
from stage2_training.labels.coco import convert_coco
from tests import miniatures

POLYGON = [[4, 4, 20, 4, 20, 12, 4, 12]]


@pytest.fixture
def write(tmp_path):
    """(annotations, changes of the document) -> a COCO JSON of two images beside it."""

    def make(annotations, **more):
        images = []
        for number in (1, 2):
            name = miniatures.image(number, tmp_path / f"{number}.png").name
            images.append({"id": number, "file_name": name, "height": 48, "width": 64})
        categories = [{"id": 3, "name": "cat"}, {"id": 5, "name": "dog"}]
        path = tmp_path / "labels.json"
        path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories, **more}))
        return path

    return make


def one(**more):
    return {"id": 1, "image_id": 1, "category_id": 3, "segmentation": POLYGON, **more}


def test_what_is_missing_is_filled_in_from_the_mask(write, tmp_path):
    images = [{"id": 1, "file_name": "1.png", "date": "x"}, {"id": 2, "file_name": "2.png", "height": 48, "width": 64}]
    coco, root, _ = convert_coco(write([one()], images=images), None)
    assert root == tmp_path
    assert coco["images"] == [{"id": n, "file_name": f"{n}.png", "height": 48, "width": 64} for n in (1, 2)]
    assert coco["categories"] == [{"id": 3, "name": "cat"}, {"id": 5, "name": "dog"}]
    (annotation,) = coco["annotations"]
    mask = coco_mask.decode(coco_mask.frPyObjects(POLYGON, 48, 64)[0])
    assert annotation["area"] == mask.sum()
    assert annotation["bbox"] == [4, 4, 16, 8]
    assert annotation["iscrowd"] == 0
    assert annotation["segmentation"] == POLYGON


@pytest.mark.parametrize(
    ("box", "read"),
    [
        ([4.2, 3.9, 16, 8], [4.2, 3.9, 16, 8]),
        ([4, 4, 20, 12], [4, 4, 16, 8]),
        ([], [4, 4, 16, 8]),
        (None, [4, 4, 16, 8]),
        ([4, 4, 16], [4, 4, 16, 8]),
    ],
)
def test_a_box_that_is_not_around_its_mask_is_the_masks(write, box, read):
    assert convert_coco(write([one(bbox=box)]), None)[0]["annotations"][0]["bbox"] == read


def test_what_is_stated_is_kept_and_run_lengths_are_read(write):
    mask = np.zeros((48, 64), np.uint8, order="F")
    mask[4:12, 4:20] = 1
    compressed = coco_mask.encode(mask)
    compressed["counts"] = compressed["counts"].decode()
    lengths = np.diff(np.flatnonzero(np.diff(mask.ravel(order="F"), prepend=0, append=0)), prepend=0).tolist()
    plain = {"size": [48, 64], "counts": [*lengths, 48 * 64 - sum(lengths)]}
    annotations = [one(area=77.5), one(segmentation=compressed), one(segmentation=plain, iscrowd=1)]
    found = convert_coco(write(annotations), None)[0]["annotations"]
    assert [each["area"] for each in found] == [77.5, 128, 128]
    assert [each["bbox"] for each in found] == [[4, 4, 16, 8]] * 3
    assert [each["iscrowd"] for each in found] == [0, 0, 1]


@pytest.mark.parametrize("images", ["pictures", "images"])
def test_images_are_found_in_folders_or_where_the_user_says(write, tmp_path, images):
    path = write([one()])
    for number in (1, 2):
        (tmp_path / images).mkdir(exist_ok=True)
        (tmp_path / f"{number}.png").rename(tmp_path / images / f"{number}.png")
    if images == "images":
        assert convert_coco(path, None)[1] == tmp_path / "images"
    else:
        with pytest.raises(UserError, match=r"labels.json: none of its 2 images is under .*--data-root \(ROOT=\)"):
            convert_coco(path, None)
    assert convert_coco(path, tmp_path / images)[1] == tmp_path / images


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"annotations": [one(segmentation=[[1, 2, 3, 4]])]},
            r"annotation 1 of image '1\.png': `segmentation` is no poly",
        ),
        ({"annotations": [one(), one(id="x", segmentation=[])]}, r"annotations\[1\] of image '1\.png': `segment"),
        (
            {"annotations": [one(segmentation=[[1, 2, 3, 4, 5, float("nan")]])]},
            r"annotation 1 of image '1\.png': `segment",
        ),
        ({"annotations": [one(segmentation=[["a"] * 6])]}, r"annotation 1 of image '1\.png': `segmentation`"),
        (
            {"annotations": [one(segmentation={"size": [1, 1], "counts": [1]})]},
            r"annotation 1 of image '1\.png': `segment",
        ),
        ({"annotations": [one(segmentation=None)]}, r"annotation 1 of image '1\.png': `segmentation`"),
        (
            {"annotations": [one(segmentation=[[70, 1, 90, 1, 90, 9]])]},
            r"annotation 1 of image '1\.png': no pixel of it is",
        ),
        ({"annotations": [one(category_id=1)]}, r"annotation 1 of image '1\.png': `category_id` is not in the fi"),
        (
            {"annotations": [one(category_id=[3])]},
            r"annotation 1 of image '1\.png': `category_id` is not in the file's",
        ),
        ({"images": [{"id": 1, "file_name": "1.png", "height": 64, "width": 48}]}, "64 x 48 pixels as displayed, but"),
        ({"images": [{"id": 2, "file_name": "2.png"}, {"id": 1, "file_name": "gone.png"}]}, "gone.png is missing: "),
    ],
)
def test_an_image_with_a_malformed_label_is_named_or_left_out(write, change, message):
    path = write(**({"annotations": [one()]} | change))
    with pytest.raises(UserError, match=message + ".*leave such images out with OPTS=--skip-malformed$"):
        convert_coco(path, None)
    skipped = []
    coco, _, _ = convert_coco(path, None, skipped)
    assert len(skipped) == 1
    assert 1 not in {image["id"] for image in coco["images"]}
    assert coco["annotations"] == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"labels.json: not JSON \(Expecting property name enclosed in double quotes: line 1 column 2"),
        ("[]", "not COCO JSON, it has no list `images`"),
        ('{"images": []}', "not COCO JSON, it has no list `annotations`"),
        ('{"images": [], "annotations": [], "categories": {}}', "it has no list `categories`"),
        ('{"shapes": []}', "is a labelme file, which labels one image; to use such labels, name the folder"),
        (
            '{"images": [{"id": "1", "file_name": "1.png"}], "annotations": [], "categories": []}',
            r"images\[0\] \('1\.png'\) needs a whole number of 64 bits as `id`; correct the file",
        ),
        ('{"images": [{"id": 1}], "annotations": [], "categories": []}', r"images\[0\] needs a text as `file_name`"),
        (
            '{"images": [{"id": 1, "file_name": "1.png"}, {"id": 1, "file_name": "2.png"}], "annotations": [], '
            '"categories": []}',
            r"images\[0\] and images\[1\] have the same id 1; correct the file",
        ),
        (
            '{"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "a"}]}',
            r"categories\[0\] and categories\[1\] have the same name 'a'",
        ),
        ('{"images": [], "annotations": [{"image_id": 1}], "categories": []}', r"annotations\[0\] has no `image_id`"),
        ('{"images": [], "annotations": [3], "categories": []}', r"annotations\[0\] has no `image_id`"),
        ('{"images": [], "annotations": [], "categories": []}', "names no images$"),
    ],
)
def test_what_is_no_coco_json_is_one_clear_line(tmp_path, text, message):
    path = tmp_path / "labels.json"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        convert_coco(path, None, skipped=[])


def test_a_box_that_is_neither_around_its_mask_nor_corners_is_said(write, tmp_path):
    boxes = [[4, 4, 16, 8], [4, 4, 20, 12], [12, 8, 16, 8], [0.2, 0.2, 0.25, 0.2]]  # the third is YOLO's, with a centre
    objects = [one(id=number, bbox=box, area=128) for number, box in enumerate(boxes)]
    coco, _, remarks = convert_coco(write(objects), None)
    assert [annotation["bbox"] for annotation in coco["annotations"]] == [[4, 4, 16, 8]] * 4
    assert remarks == [
        f"{tmp_path}/labels.json: annotation 2 of image '1.png': `bbox` is not around its mask, whose box is used; "
        "2 in all"
    ]


def test_a_box_and_an_area_of_another_object_are_refused(write):
    with pytest.raises(
        UserError, match=r"annotation 1 of image '1\.png': `segmentation` contradicts `bbox` and `area`"
    ):
        convert_coco(write([one(bbox=[30, 20, 30, 20], area=600)]), None)


def test_ignored_objects_are_crowds(write):
    coco, _, _ = convert_coco(write([one(), one(ignore=1)]), None)
    assert [annotation["iscrowd"] for annotation in coco["annotations"]] == [0, 1]


def test_paths_of_windows_are_found(write, tmp_path):
    images = [{"id": number, "file_name": f"images\\{number}.png"} for number in (1, 2)]
    path = write([one()], images=images)
    (tmp_path / "images").mkdir()
    for number in (1, 2):
        (tmp_path / f"{number}.png").rename(tmp_path / "images" / f"{number}.png")
    coco, root, _ = convert_coco(path, None)
    assert root == tmp_path
    assert [image["file_name"] for image in coco["images"]] == ["images/1.png", "images/2.png"]


def test_two_names_of_one_file_are_refused(write):
    images = [{"id": 1, "file_name": "1.png"}, {"id": 2, "file_name": "C:\\photos\\1.png"}]
    with pytest.raises(UserError, match=r"labels\.json: labels '1\.png' twice; name each image once"):
        convert_coco(write([one()], images=images), None)


@pytest.mark.parametrize("size", [{"height": 0, "width": -1}, {"height": None, "width": None}])
def test_sizes_that_are_not_known_are_filled_in(write, size):
    coco, _, _ = convert_coco(write([one()], images=[{"id": 1, "file_name": "1.png", **size}]), None)
    assert coco["images"] == [{"id": 1, "file_name": "1.png", "height": 48, "width": 64}]


def test_a_root_category_is_left_out_and_said(write):
    categories = [{"id": 0, "name": "pets"}, {"id": 3, "name": "cat", "supercategory": "pets"}]
    coco, _, remarks = convert_coco(write([one()], categories=categories), None)
    assert coco["categories"] == [{"id": 3, "name": "cat"}]
    assert "category 'pets' is left out" in remarks[0]


def test_an_image_that_cannot_be_decoded_is_named_or_left_out(write, tmp_path):
    path = write([one()])
    image = tmp_path / "1.png"
    image.write_bytes(image.read_bytes()[:4000])
    with pytest.raises(UserError, match=r"1\.png cannot be read as an image: it cannot be decoded: .*; repair or repl"):
        convert_coco(path, None)
    skipped = []
    assert [one["id"] for one in convert_coco(path, None, skipped).coco["images"]] == [2]
    assert len(skipped) == 1


@pytest.mark.parametrize("other", ["{tmp}/1.png", "sub/../1.png"])
def test_two_paths_of_one_file_are_refused(write, tmp_path, other):
    (tmp_path / "sub").mkdir()
    images = [{"id": 1, "file_name": "1.png"}, {"id": 2, "file_name": other.format(tmp=tmp_path)}]
    with pytest.raises(
        UserError, match=r"labels\.json: labels '.*1\.png' twice, also as '1\.png'; name each image once"
    ):
        convert_coco(write([one()], images=images), None)


def test_links_to_one_file_are_two_images(write, tmp_path):
    path = write([one()])
    (tmp_path / "2.png").unlink()
    (tmp_path / "2.png").symlink_to(tmp_path / "1.png")
    assert len(convert_coco(path, None).coco["images"]) == 2


def test_images_are_found_by_name_in_the_folder_that_the_user_names(write, tmp_path):
    images = [{"id": number, "file_name": f"elsewhere/{number}.png"} for number in (1, 2)]
    path = write([one()], images=images)
    with pytest.raises(UserError, match="none of its 2 images is under"):
        convert_coco(path, None)
    found = convert_coco(path, tmp_path).coco["images"]
    assert [image["file_name"] for image in found] == ["1.png", "2.png"]


def test_polygons_that_leave_their_image_are_said(write, tmp_path):
    over = [[40, 13, -3, 19, 69, 23, 30, 50]]
    far = [[60, 13, 20, 19, 20, 23, 70, 25]]
    counts = {"size": [48, 64], "counts": [10, 20, 48 * 64 - 30]}
    shapes = [POLYGON, over, far, counts, far]
    path = write([one(id=number, segmentation=shape) for number, shape in enumerate(shapes)])
    assert convert_coco(path, None).remarks == [
        f"{path}: annotation 2 of image '1.png': a polygon leaves its image by more than 5 pixels; what is inside is "
        "used; 2 in all"
    ]
