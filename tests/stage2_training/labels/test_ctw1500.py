import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from stage1_proposals.common.errors import UserError
from stage1_proposals.images.decode import read_image
from stage2_training.labels.conversion import image_size
from stage2_training.labels.ctw1500 import (
    SPLITS,
    check_complete,
    convert_ctw1500,
    read_test_label,
    read_train_label,
    write_annotations,
)
from tests import miniatures

# The label that the data set's documentation shows, with one letter's middle.
OLATHE = "131,58,208,49,279,56,346,76,412,101,473,141,530,192,510,246,458,210,405,175,350,151,291,137,228,133,165,134"
XML = f"""<Annotations>
 <image file="0001.jpg">
  <box height="197" left="131" top="49" width="399">
   <label>OLATHE</label>
   <segs>{OLATHE}</segs>
   <pts x="183" y="95" />
  </box>
 </image>
</Annotations>
"""
RECTANGLE = [(10 + 5 * i, 10) for i in range(7)] + [(40 - 5 * i, 20) for i in range(7)]


def numbers(polygon):
    return ",".join(str(value) for point in polygon for value in point)


def shifted(dx, dy):
    return [(x + dx, y + dy) for x, y in RECTANGLE]


@pytest.fixture
def root(tmp_path):
    """One image and label per split, 600 x 300 pixels."""
    for name, split in SPLITS.items():
        image = tmp_path / split.images / f"{split.first_id:04d}.jpg"
        image.parent.mkdir()
        Image.new("RGB", (600, 300), "grey").save(image)
        label = tmp_path / split.labels / split.label_name(image)
        label.parent.mkdir()
        label.write_text(XML if name == "train" else f"{OLATHE},####OLATHE\n{numbers(RECTANGLE)},#######\n")
    return tmp_path


def write(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_a_train_label_is_read(tmp_path):
    (line,) = read_train_label(write(tmp_path, "0001.xml", XML))
    assert line.text == "OLATHE"
    assert line.polygon.shape == (14, 2)
    assert line.polygon[0].tolist() == [131, 58]
    assert line.polygon[-1].tolist() == [165, 134]


def test_a_test_label_is_read_with_commas_in_its_text(tmp_path):
    path = write(tmp_path, "0001001.txt", f"{OLATHE},####Salt, Pepper & Co.\n")
    (line,) = read_test_label(path)
    assert line.text == "Salt, Pepper & Co."
    assert line.polygon.ravel().tolist() == [int(value) for value in OLATHE.split(",")]


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("FISH & CHIPS", "FISH & CHIPS"),
        ("R&B", "R&B"),
        ("A&amp;B &lt;3 &#65;&#x42;", "A&B <3 AB"),
        ("&nbsp;x", "&nbsp;x"),
        ("CAFÉ 茶", "CAFÉ 茶"),
    ],
)
def test_ampersands_in_xml_are_read_bare_or_escaped(tmp_path, written, read):
    (line,) = read_train_label(write(tmp_path, "0001.xml", XML.replace("OLATHE", written)))
    assert line.text == read


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "\ufeff" + text,
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace(OLATHE, f" {OLATHE}, "),
        lambda text: '<?xml version="1.0" encoding="utf-8"?>\n' + text,
        lambda text: text + "\n\n",
    ],
)
def test_what_editors_leave_in_xml_is_tolerated(tmp_path, change):
    (line,) = read_train_label(write(tmp_path, "0001.xml", change(XML)))
    assert line.text == "OLATHE"
    assert line.polygon[6].tolist() == [530, 192]


def test_what_editors_leave_in_text_is_tolerated(tmp_path):
    text = f"\ufeff\r\n{OLATHE},####A\r\n\r\n{OLATHE.replace(',', ', ')},####\r\n{OLATHE},\r\n\r\n"
    lines = read_test_label(write(tmp_path, "0001001.txt", text))
    assert [(line.text, line.line) for line in lines] == [("A", 2), ("", 4), ("", 5)]
    assert all(np.array_equal(line.polygon, lines[0].polygon) for line in lines)


def test_bytes_that_are_not_utf8_spoil_only_the_transcription(tmp_path):
    content = f"{OLATHE},####CAF\n".encode().replace(b"CAF", b"CAF\xc9")
    (line,) = read_test_label(write(tmp_path, "0001001.txt", content))
    assert line.text == "CAF\ufffd"


@pytest.mark.parametrize(
    ("content", "where", "what"),
    [
        (XML.replace("</box>", ""), "line 8", "not well-formed"),
        (XML[: len(XML) // 2], "line 5", "not well-formed"),
        ("", "line 1", "not well-formed"),
        ("<html></html>", "line 1", "outermost element is <html>"),
        (XML.replace(",165,134", ""), "line 5", "26 numbers where 28"),
        (XML.replace(f"<segs>{OLATHE}</segs>", ""), "line 3", "0 numbers where 28"),
        (XML.replace("131,58", "131,5x8"), "line 5", "no integer"),
        (XML.replace("131,58", "131,58000000"), "line 5", "exceeds"),
    ],
)
def test_a_malformed_train_label_is_named_by_file_and_line(tmp_path, content, where, what):
    path = write(tmp_path, "0001.xml", content)
    with pytest.raises(UserError) as caught:
        read_train_label(path)
    assert f"{path}, {where}: " in str(caught.value)
    assert what in str(caught.value)


@pytest.mark.parametrize(
    ("row", "what"),
    [
        (f"{OLATHE},OLATHE", "'####'"),
        (OLATHE, "'####'"),
        ("1,2,3,####A", "3 numbers where 28"),
        (OLATHE.replace("131", "1.5.1") + ",####A", "no integer"),
        ("nonsense", "'####'"),
    ],
)
def test_a_malformed_test_label_is_named_by_file_and_line(tmp_path, row, what):
    path = write(tmp_path, "0001001.txt", f"{OLATHE},####A\n\n{row}\n")
    with pytest.raises(UserError) as caught:
        read_test_label(path)
    assert f"{path}, line 3: " in str(caught.value)
    assert what in str(caught.value)


def test_a_split_becomes_coco(root):
    coco = convert_ctw1500(root, "train")
    assert coco["categories"] == [{"id": 1, "name": "text"}]
    assert coco["images"] == [{"id": 1, "file_name": "train_images/0001.jpg", "width": 600, "height": 300}]
    (annotation,) = coco["annotations"]
    assert annotation["segmentation"] == [[int(value) for value in OLATHE.split(",")]]
    assert (annotation["id"], annotation["image_id"], annotation["iscrowd"], annotation["text"]) == (1, 1, 0, "OLATHE")
    assert annotation["bbox"] == pytest.approx([131, 49, 399, 197], abs=2)  # the box its XML gives


def test_illegible_lines_are_ignored_by_coco_evaluation(root):
    """Neither detecting nor missing a `###` line changes the score."""
    coco = COCO(write_annotations(root, "test"))
    crowds = {annotation["text"]: annotation["iscrowd"] for annotation in coco.anns.values()}
    assert crowds == {"OLATHE": 0, "###": 1}
    for found in (["OLATHE", "###"], ["OLATHE"]):
        detections = [
            {"image_id": 1001, "category_id": 1, "segmentation": coco.annToRLE(annotation), "score": 0.9}
            for annotation in coco.anns.values()
            if annotation["text"] in found
        ]
        evaluation = COCOeval(coco, coco.loadRes(detections), "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        assert evaluation.stats[0] == pytest.approx(1.0)


@settings(deadline=None, max_examples=25)
@given(
    left=st.integers(-60, 620),
    top=st.integers(-60, 320),
    width=st.integers(40, 200),
    height=st.integers(6, 80),
    bend=st.integers(-15, 15),
)
def test_area_and_box_are_those_of_the_drawn_polygon(tmp_path_factory, left, top, width, height, bend):
    """Against Pillow's own rasteriser, also where the polygon crosses the image's edge."""
    root = tmp_path_factory.mktemp("ctw")
    x = left + np.arange(7) * width // 6
    arch = top + (bend * ((np.arange(7) - 3) / 3) ** 2).astype(int)
    polygon = [*zip(x, arch, strict=True), *zip(x[::-1], arch[::-1] + height, strict=True)]
    for folder in ("test_images", "gt_ctw1500"):
        (root / folder).mkdir()
    Image.new("RGB", (600, 300)).save(root / "test_images" / "1001.jpg")
    (root / "gt_ctw1500" / "0001001.txt").write_text(numbers(polygon) + ",####A\n")
    coco = convert_ctw1500(root, "test")

    # Drawn with room around it, then cropped to the image.
    canvas = Image.new("1", (1000, 700))
    ImageDraw.Draw(canvas).polygon([(int(px) + 200, int(py) + 200) for px, py in polygon], fill=1)
    drawn = np.asarray(canvas)[200:500, 200:800]
    # The two rasterisers decide differently on the pixels that the edge runs through.
    rim = 2 * (width + height + 2 * abs(bend)) + 4
    if not coco["annotations"]:
        assert drawn.sum() <= rim
        return
    (annotation,) = coco["annotations"]
    mask = coco_mask.decode(coco_mask.frPyObjects(annotation["segmentation"], 300, 600)[0])
    assert (mask != drawn).sum() <= rim
    rows, columns = np.nonzero(mask)
    assert annotation["area"] == mask.sum()
    assert annotation["bbox"] == [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]


def test_a_polygon_outside_its_image_is_left_out_and_named(root):
    label = root / "gt_ctw1500" / "0001001.txt"
    label.write_text(f"{numbers(RECTANGLE)},####IN\n{numbers(shifted(2000, 0))},####OUT\n")
    coco = convert_ctw1500(root, "test")
    assert [annotation["text"] for annotation in coco["annotations"]] == ["IN"]
    assert coco["info"]["dropped"] == ["gt_ctw1500/0001001.txt, line 2"]


@pytest.mark.parametrize(("orientation", "size"), [(1, (20, 40)), (3, (20, 40)), (6, (40, 20)), (8, (40, 20))])
def test_the_size_is_that_of_the_image_as_displayed(tmp_path, orientation, size):
    path = tmp_path / "0001.jpg"
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (40, 20)).save(path, exif=exif)
    assert image_size(path) == size
    assert read_image(path).shape[:2] == size


def test_the_json_is_written_whole_and_the_same_every_time(root):
    path = write_annotations(root, "test")
    first = path.read_bytes()
    assert write_annotations(root, "test").read_bytes() == first
    assert [entry.name for entry in path.parent.iterdir()] == ["test.json"]
    assert json.loads(first) == convert_ctw1500(root, "test")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda root: (root / "gt_ctw1500" / "0001001.txt").unlink(), "0001001.txt is missing: it labels"),
        (lambda root: (root / "gt_ctw1500" / "0001002.txt").touch(), "0001002.txt belongs to no image"),
        (lambda root: (root / "test_images" / "1001.jpg").write_bytes(b"no image"), "cannot be read as an image"),
        (lambda root: (root / "test_images" / "1001.jpg").unlink(), "holds no .jpg images"),
        (lambda root: (root / "test_images" / "a.jpg").touch(), "a.jpg should be named by its number"),
        (lambda root: (root / "test_images").rename(root / "images"), "test_images is missing: download CTW1500"),
        (lambda root: (root / "annotations").touch(), "test.json: cannot be written"),
    ],
)
def test_what_is_wrong_with_a_folder_is_one_clear_line(root, damage, message):
    damage(root)
    with pytest.raises(UserError, match=message):
        write_annotations(root, "test")


def test_completeness_names_the_first_missing_file(root):
    check_complete(root, "train", 1)
    check_complete(root, "test", 1)
    with pytest.raises(UserError, match=r"train_images lacks 2 of its 3 files, 0002\.jpg first: download CTW1500"):
        check_complete(root, "train", 3)
    (root / "test_images" / "1002.jpg").touch()
    with pytest.raises(UserError, match=r"gt_ctw1500 lacks 1 of its 2 files, 0001002\.txt first"):
        check_complete(root, "test", 2)


def test_a_line_that_reaches_far_out_of_its_image_is_malformed(tmp_path):
    root = miniatures.ctw1500(tmp_path)
    label = root / "gt_ctw1500" / "0001001.txt"
    label.write_text(label.read_text().replace("52,24", "9000,24"))
    with pytest.raises(
        UserError, match=r"0001001\.txt, line 1: malformed CTW1500 label: the coordinate 9000 is far outs"
    ):
        convert_ctw1500(root, "test")


def test_an_image_that_cannot_be_decoded_is_named(tmp_path):
    root = miniatures.ctw1500(tmp_path)
    image = root / "test_images" / "1001.jpg"
    image.write_bytes(image.read_bytes()[:2000])
    with pytest.raises(UserError, match=r"1001\.jpg cannot be read as an image: it cannot be decoded"):
        convert_ctw1500(root, "test")
