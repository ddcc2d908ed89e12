import pickle

import pytest

from stage1_proposals.common.errors import UserError
from stage1_proposals.common.files import write_text
from stage2_training.labels.conversion import LabelError, check_count, info, numbered, skip_malformed


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
