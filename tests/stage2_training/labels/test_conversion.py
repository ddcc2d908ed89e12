import pickle

import pytest
from PIL import Image

from stage1_proposals.common.errors import UserError
from stage1_proposals.common.files import write_text
from stage1_proposals.common.system import configure_process
from stage2_training.labels.conversion import (
    LabelError,
    check_count,
    image_size,
    image_sizes,
    info,
    numbered,
    skip_malformed,
)


def test_a_malformed_label_ends_the_conversion_unless_such_are_left_out():
    with (
        pytest.raises(UserError, match=r"^a.xml is bad; mend it, or leave such images out with OPTS=--skip-malformed$"),
        skip_malformed(None),
    ):
        raise LabelError("a.xml is bad", "mend it")
    skipped = []
    with skip_malformed(skipped):
        raise LabelError("a.xml is bad", "mend it")
    assert skipped == ["a.xml is bad"]
    with pytest.raises(UserError, match="not a label"), skip_malformed(skipped):
        raise UserError("not a label")
    assert str(pickle.loads(pickle.dumps(LabelError("a", "b")))) == "a; b"  # it comes from other processes


def test_a_wrong_count_is_refused_with_both_numbers():
    check_count("images", 5, 5, "somewhere")
    with pytest.raises(
        UserError, match=r"^images: 1,234 images, not the 5,000 it should have: get it at X; OPTS=--par"
    ):
        check_count("images", 1234, 5000, "X")


def test_info_notes_a_part_and_what_is_left_out():
    assert info("a", "b", 5, 5, []) == info("a", "b", 5, None, None) == {"description": "a", "url": "b"}
    noted = info("a", "b", 4, 5, ["c"])
    assert noted["partial"] == {"found": 4, "expected": 5}
    assert noted["skipped"] == ["c"]


def test_annotations_are_numbered_from_one():
    assert numbered([{"id": 0}, {"a": 1}]) == [{"id": 1}, {"a": 1, "id": 2}]


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    write_text(tmp_path / "new" / "a.json", "é")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.json"]
    with pytest.raises(UserError, match=r"b\.json: cannot be written"):
        write_text(tmp_path / "new" / "a.json" / "b.json", "x")


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (
            (20_000, 10_001),
            (
                r"a\.png cannot be read as an image: it is too large: it has more than 200,000,000 pixels; "
                r"make it smaller, or cut it into pieces$"
            ),
        ),
        (
            (6_000, 4),
            (
                r"a\.png cannot be read as an image: it is a strip of 6000 x 4 pixels: its longer side may be at most "
                r"100 times the shorter one; cut it into pieces$"
            ),
        ),
        ((1, 101), r"a\.png cannot be read as an image: it is a strip of 1 x 101 pixels"),
    ],
)
def test_an_image_that_cannot_be_trained_on_is_a_bad_label(tmp_path, size, message):
    configure_process()
    Image.new("1", size).save(tmp_path / "a.png")
    with pytest.raises(LabelError, match=message):
        image_size(tmp_path / "a.png")


def test_many_images_are_measured_and_the_bad_ones_returned(tmp_path):
    Image.new("1", (100, 1)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no picture")
    sizes = image_sizes([tmp_path / "a.png", tmp_path / "b.png"])
    assert sizes[tmp_path / "a.png"] == (1, 100)
    assert isinstance(sizes[tmp_path / "b.png"], LabelError)
