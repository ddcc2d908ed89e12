import json

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageDraw
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from stage1_proposals.common.errors import UserError
from stage2_training.labels.conversion import numbered
from stage2_training.labels.labelme import convert_labelme
from tests import miniatures
from tests.miniatures import SIZE, labelme_file, mask_shape, shape


def drawn(draw_on):
    """A mask as Pillow draws it, bool (H, W)."""
    canvas = Image.new("1", SIZE[::-1])
    draw_on(ImageDraw.Draw(canvas))
    return np.asarray(canvas)


def masks(coco):
    """The masks of a COCO dictionary, bool (H, W)."""
    api = COCO()
    api.dataset = {**coco, "annotations": numbered(coco["annotations"])}
    api.createIndex()
    return [api.annToMask(annotation).astype(bool) for annotation in api.dataset["annotations"]]


def iou(a, b):
    return (a & b).sum() / (a | b).sum()


BLOB = np.random.default_rng(0).random((12, 17)) < 0.5
BLOB[0, 0] = BLOB[-1, -1] = True
PASTED = np.zeros(SIZE, bool)
PASTED[9:21, 5:22] = BLOB


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (
            shape("polygon", "a", [[4, 4], [40.5, 8], [20, 40]]),
            drawn(lambda draw: draw.polygon([(4, 4), (40.5, 8), (20, 40)], fill=1)),
        ),
        (
            shape("oriented_rectangle", "a", [[20, 4], [50, 20], [40, 40], [10, 24]]),
            drawn(lambda draw: draw.polygon([(20, 4), (50, 20), (40, 40), (10, 24)], fill=1)),
        ),
        (shape("rectangle", "a", [[50, 40], [10, 4]]), drawn(lambda draw: draw.rectangle((10, 4, 50, 40), fill=1))),
        (
            shape("rectangle", "a", [[10, 4], [50, 4], [50, 40], [10, 40]]),
            drawn(lambda draw: draw.rectangle((10, 4, 50, 40), fill=1)),
        ),
        (shape("circle", "a", [[30, 24], [30, 10]]), drawn(lambda draw: draw.ellipse((16, 10, 44, 38), fill=1))),
        (mask_shape("a", 5, 9, BLOB), PASTED),
    ],
)
def test_a_shape_covers_the_pixels_that_it_draws(tmp_path, entry, expected):
    labelme_file(tmp_path, 1, [entry])
    coco, _, _ = convert_labelme(tmp_path, None)
    (mask,) = masks(coco)
    assert iou(mask, expected) > (0.9 if entry["shape_type"] != "mask" else 0.999)
    (annotation,) = coco["annotations"]
    assert annotation["area"] == mask.sum()
    rows, columns = np.nonzero(mask)
    assert annotation["bbox"] == [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]


def test_a_folder_becomes_coco(tmp_path):
    miniatures.labelme(tmp_path, images=2)
    labelme_file(tmp_path, 7, [])
    coco, root, _ = convert_labelme(tmp_path, None)
    assert root == tmp_path
    assert [image["file_name"] for image in coco["images"]] == ["images/0.png", "images/1.png", "images/7.png"]
    assert {(image["height"], image["width"]) for image in coco["images"]} == {SIZE}
    assert coco["categories"] == [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    assert [(one["image_id"], one["category_id"]) for one in coco["annotations"]] == [(1, 2), (1, 1), (2, 2), (2, 1)]
    json.dumps(coco)


def test_parts_of_one_group_and_label_are_one_object(tmp_path):
    left, right = [[4, 4], [20, 4], [20, 20]], [[40, 4], [60, 4], [60, 20]]
    entries = [
        shape("polygon", "a", left, group_id=1),
        shape("polygon", "b", left, group_id=1),
        shape("polygon", "a", left),
        shape("polygon", "a", left),
        shape("polygon", "a", right, group_id=1),
        mask_shape("b", 40, 30, np.ones((3, 3))) | {"group_id": 1},
    ]
    labelme_file(tmp_path, 1, entries)
    coco, _, _ = convert_labelme(tmp_path, None)
    assert [annotation["category_id"] for annotation in coco["annotations"]] == [1, 2, 1, 1]
    first, second, third, _ = masks(coco)
    expected = coco_mask.decode(coco_mask.frPyObjects([np.ravel(left).tolist(), np.ravel(right).tolist()], *SIZE))
    assert (first == expected.any(2)).all()
    assert len(coco["annotations"][0]["segmentation"]) == 2  # still polygons
    assert second[30:33, 40:43].all()
    assert second.sum() == third.sum() + 9


def test_images_are_where_the_file_or_the_user_says(tmp_path):
    path = miniatures.labelme(tmp_path / "set", images=1) / "labels" / "0.json"
    (tmp_path / "set" / "images").rename(tmp_path / "moved")
    with pytest.raises(UserError, match=rf"images/0.png is missing: {path} labels it; say .*--data-root \(ROOT=\), or"):
        convert_labelme(tmp_path / "set", None)
    coco, root, _ = convert_labelme(tmp_path / "set", tmp_path / "moved")
    assert (root, coco["images"][0]["file_name"]) == (tmp_path / "moved", "0.png")


TRIANGLE = [[4, 4], [20, 4], [20, 20]]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (
            shape("cuboid", "a", TRIANGLE),
            r"1.json: shape 2 \('a'\) is of the kind 'cuboid', which is not read; correct it, or",
        ),
        (shape("polygon", "a", TRIANGLE[:2]), r"shape 2 \('a'\) is no polygon: it has 2 points"),
        (shape("polygon", "a", [[1, 2, 3]]), r"shape 2 \('a'\) is no polygon: cannot reshape"),
        (shape("polygon", "a", [["x", 1], *TRIANGLE]), r"shape 2 \('a'\) is no polygon: could not convert"),
        (shape("polygon", "a", [[float("inf"), 1], *TRIANGLE]), r"shape 2 .* a coordinate is not finite"),
        (shape("polygon", "a", [[4e10, 1], *TRIANGLE]), r"shape 2 .* the coordinate 4e\+10 is far outside its image"),
        (shape("rectangle", "a", TRIANGLE), r"shape 2 \('a'\) is no rectangle: it has 3 points, not 2"),
        (shape("circle", "a", TRIANGLE), r"shape 2 \('a'\) is no circle: it has 3 points"),
        (shape("mask", "a", TRIANGLE[:2]), r"shape 2 \('a'\) is no mask"),
        (mask_shape("a", 60, 40, BLOB), r"shape 2 \('a'\) is no mask: its box reaches over the image's edge"),
        (
            mask_shape("a", 4, 4, BLOB) | {"points": [[4, 4], [9, 9]]},
            r"is no mask: its picture has \(17, 12\) pixels, its box \(6, 6\)",
        ),
        (mask_shape("a", 4, 4, BLOB) | {"mask": "no picture"}, r"shape 2 \('a'\) is no mask"),
        (shape("polygon", "a", [[70, 4], [80, 4], [80, 9]]), r"shape 2 \('a'\) has no pixel inside its image"),
        (shape("polygon", "", TRIANGLE), "shape 2 has no `label`"),
        (shape("polygon", "a", TRIANGLE, group_id=[1]), r"shape 2 \('a'\) is no polygon: unhashable"),
        ("a", "shape 2 has no `label`"),
    ],
)
def test_a_malformed_shape_is_named_or_its_image_left_out(tmp_path, entry, message):
    labelme_file(tmp_path, 1, [shape("polygon", "a", TRIANGLE), entry])
    labelme_file(tmp_path, 2, [shape("polygon", "a", TRIANGLE)])
    with pytest.raises(UserError, match=message):
        convert_labelme(tmp_path, None)
    skipped = []
    coco, _, _ = convert_labelme(tmp_path, None, skipped)
    assert [image["file_name"] for image in coco["images"]] == ["images/2.png"]
    assert len(skipped) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"1.json: not JSON \(Expecting"),
        ("[]", "1.json: not a labelme file, it has no list `shapes`"),
        ('{"shapes": []}', "1.json: has no `imagePath`"),
        ('{"shapes": [], "imagePath": "gone.png"}', "gone.png is missing"),
        (
            '{"shapes": [], "imagePath": "../images/1.png", "imageHeight": 64, "imageWidth": 48}',
            "1.json: is for 48 x 64 pixels, but .*1.png has 64 x 48",
        ),
    ],
)
def test_a_malformed_file_is_named_or_left_out(tmp_path, text, message):
    labelme_file(tmp_path, 2, [])
    labelme_file(tmp_path, 1, []).write_text(text)
    with pytest.raises(UserError, match=message + ".*--skip-malformed$"):
        convert_labelme(tmp_path, None)
    skipped = []
    assert len(convert_labelme(tmp_path, None, skipped)[0]["images"]) == len(skipped) == 1


def test_folders_without_labels_and_images_labelled_twice_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"no labelme files in it \(\*.json\)"):
        convert_labelme(tmp_path, None)
    path = labelme_file(tmp_path, 1, [])
    path.with_name("other.json").write_text(path.read_text())
    with pytest.raises(UserError, match=r"other.json: labels .*1.png, as .*labels/1.json does; remove one of them"):
        convert_labelme(tmp_path, None, skipped=[])


def test_what_is_to_be_ignored_is_a_crowd_of_every_class(tmp_path):
    ignored = shape("rectangle", "__ignore__", [[40, 10], [50, 20]])
    background = shape("rectangle", "_background_", [[0, 0], [63, 47]])
    labelme_file(tmp_path, 1, [shape("polygon", "b", TRIANGLE), ignored, background])
    labelme_file(tmp_path, 2, [shape("polygon", "a", TRIANGLE)])
    coco = convert_labelme(tmp_path, None).coco
    assert [category["name"] for category in coco["categories"]] == ["a", "b"]
    crowds = [one["category_id"] for one in coco["annotations"] if one["iscrowd"]]
    assert crowds == [1, 2]
    assert len(coco["annotations"]) == 4


def test_blanks_around_a_label_are_not_of_its_name(tmp_path):
    labelme_file(tmp_path, 1, [shape("polygon", label, TRIANGLE) for label in ("cat", "cat ", "\tcat")])
    assert convert_labelme(tmp_path, None).coco["categories"] == [{"id": 1, "name": "cat"}]


@pytest.mark.parametrize("kind", ["rotation", "quadrilateral"])
def test_four_corners_of_another_kind_are_a_polygon(tmp_path, kind):
    corners = [[20, 4], [50, 20], [40, 40], [10, 24]]
    labelme_file(tmp_path, 1, [shape(kind, "a", corners), shape("polygon", "a", corners)])
    found, expected = convert_labelme(tmp_path, None).coco["annotations"]
    assert found == expected


@pytest.mark.parametrize("kind", ["point", "points", "line", "linestrip"])
def test_shapes_without_area_are_left_out_and_said(tmp_path, kind):
    labelme_file(tmp_path, 1, [shape("polygon", "a", TRIANGLE), *[shape(kind, "b", TRIANGLE)] * 3])
    coco, _, remarks = convert_labelme(tmp_path, None)
    assert len(coco["annotations"]) == len(coco["categories"]) == 1
    assert remarks == [
        f"{tmp_path}/labels/1.json, shape 2 ('b'): points and lines are left out, since they have no area; 3 in all"
    ]


def test_corners_of_masks_are_rounded(tmp_path):
    entry = mask_shape("a", 10, 9, BLOB)
    entry["points"] = [[9.9999999, 9.0000001], [25.9999999, 20.0000001]]
    labelme_file(tmp_path, 1, [entry, mask_shape("a", 10, 9, BLOB)])
    found, expected = masks(convert_labelme(tmp_path, None).coco)
    assert (found == expected).all()


@pytest.mark.parametrize("name", ["1.tif", "1.jpg"])
def test_an_orientation_tag_turns_the_image_that_labels_are_for(tmp_path, name):
    path = labelme_file(tmp_path, 1, [shape("polygon", "a", TRIANGLE)])
    image = Image.new("RGB", SIZE[::-1])
    image.getexif()[ExifTags.Base.Orientation] = 6
    image.save(tmp_path / "images" / name, exif=image.getexif())
    document = json.loads(path.read_text()) | {"imagePath": f"../images/{name}"}
    path.write_text(json.dumps(document | {"imageHeight": SIZE[1], "imageWidth": SIZE[0]}))
    (found,) = convert_labelme(tmp_path, None).coco["images"]
    assert (found["height"], found["width"]) == SIZE[::-1]
    path.write_text(json.dumps(document))
    with pytest.raises(UserError, match=r"1\.json: is for 64 x 48 pixels, but .* has 48 x 64 as displayed"):
        convert_labelme(tmp_path, None)


@pytest.mark.parametrize("sides", [{"imageHeight": -1, "imageWidth": -1}, {"imageHeight": None}, {"imageWidth": 0}])
def test_sizes_that_a_program_does_not_know_are_those_of_the_image(tmp_path, sides):
    labelme_file(tmp_path, 1, [], **sides)
    (image,) = convert_labelme(tmp_path, None).coco["images"]
    assert (image["height"], image["width"]) == SIZE


def test_a_size_as_text_is_said_to_be_text(tmp_path):
    labelme_file(tmp_path, 1, [], imageWidth="64")
    with pytest.raises(UserError, match=r"1\.json: has a `imageWidth` that is text, not a number \('64'\)"):
        convert_labelme(tmp_path, None)


def test_an_image_that_cannot_be_decoded_is_named_or_left_out(tmp_path):
    miniatures.labelme(tmp_path, images=2)
    image = tmp_path / "images" / "0.png"
    image.write_bytes(image.read_bytes()[:4000])
    with pytest.raises(UserError, match=r"0\.png cannot be read as an image: it cannot be decoded"):
        convert_labelme(tmp_path, None)
    skipped = []
    assert len(convert_labelme(tmp_path, None, skipped).coco["images"]) == len(skipped) == 1


def test_coco_json_in_a_folder_is_to_be_named_itself(tmp_path):
    labelme_file(tmp_path, 1, [])
    (tmp_path / "coco.json").write_text('{"images": [], "annotations": [], "categories": []}')
    with pytest.raises(UserError, match=r"coco\.json: is COCO JSON, no labelme file; name the file itself, or leave"):
        convert_labelme(tmp_path, None)


def test_a_file_that_cannot_be_read_is_said_to_be_so(tmp_path):
    labelme_file(tmp_path, 1, [])
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(UserError, match=r"folder\.json: cannot be read \(Is a directory\); repair it, or leave"):
        convert_labelme(tmp_path, None)


@pytest.mark.parametrize("root", [None, "images"])
def test_images_are_found_in_another_unicode_form(tmp_path, root):
    labelme_file(tmp_path, 1, [], imagePath="../images/\u00e9.png")
    (tmp_path / "images" / "1.png").rename(tmp_path / "images" / "e\u0301.png")
    (image,) = convert_labelme(tmp_path, root and tmp_path / root).coco["images"]
    assert image["file_name"].endswith("e\u0301.png")
