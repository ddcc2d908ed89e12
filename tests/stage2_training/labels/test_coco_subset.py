import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stage1_proposals.common.errors import UserError
from stage2_training.labels import coco_subset
from stage2_training.labels.coco_subset import SHARES, draw_share, ids_file, unlabeled_images, write_subset
from tests import miniatures


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Forty training images and two of val2017, as if COCO had no more."""
    monkeypatch.setattr(coco_subset, "COUNTS", {"train2017": 40, "val2017": 2, "unlabeled2017": 3})
    return miniatures.coco(tmp_path, train=40)


def test_a_draw_is_the_same_on_every_machine():
    """Computed with sha256sum: `for i in $(seq 20); do printf 7:$i | sha256sum; done`, sorted."""
    assert draw_share(range(1, 21), 0.2, seed=7) == [4, 7, 12, 3]


@given(st.sets(st.integers(0, 10**6), min_size=1, max_size=200), st.integers(0, 9))
def test_a_smaller_share_is_part_of_a_larger_one_in_any_order(ids, seed):
    ten, five = (draw_share(ids, share, seed) for share in (0.10, 0.05))
    assert ten[: len(five)] == five
    assert len(ten) == max(1, round(len(ids) / 10))
    assert draw_share(sorted(ids, reverse=True), 0.10, seed) == ten


def test_the_number_of_images_is_that_of_the_paper():
    counts = {name: len(draw_share(range(118_287), share, 0)) for name, share in SHARES.items()}
    assert counts == {"coco10": 11_829, "coco5": 5_914}


def test_a_subset_has_its_images_their_objects_and_all_classes(root):
    whole = json.loads((root / "annotations" / "instances_train2017.json").read_text())
    path = write_subset(root, "coco10", seed=3)
    subset = json.loads(path.read_text())
    ids = {image["id"] for image in subset["images"]}
    assert len(ids) == 4
    assert subset["images"] == [image for image in whole["images"] if image["id"] in ids]
    assert subset["annotations"] == [one for one in whole["annotations"] if one["image_id"] in ids]
    assert subset["categories"] == whole["categories"]
    assert subset["info"]["subset"] == {"seed": 3, "images": 4, "of": 40}
    assert "partial" not in subset["info"]
    assert ids_file(root, "coco10").read_text() == "".join(f"{number}\n" for number in sorted(ids))
    first = path.read_bytes()
    assert write_subset(root, "coco10", seed=3).read_bytes() == first
    assert write_subset(root, "coco10", seed=4).read_bytes() != first


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda root: (root / "val2017").rename(root / "val"), r"val2017 is missing: get COCO at https://cocodataset"),
        (lambda root: next((root / "train2017").iterdir()).unlink(), r"train2017: 39 images, not the 40 it should"),
        (lambda root: (root / "train2017" / "1.jpg").touch(), r"train2017: 41 images, not the 40 it should"),
        (
            lambda root: (root / "annotations" / "instances_train2017.json").unlink(),
            "instances_train2017.json is missing: get COCO at",
        ),
        (
            lambda root: (root / "annotations" / "instances_train2017.json").write_text('{"images": ['),
            r"instances_train2017.json: not JSON \(Expecting",
        ),
        (
            lambda root: (root / "annotations" / "instances_val2017.json").write_text('{"images": [{}]}'),
            "instances_val2017.json: not COCO JSON, it has no list `annotations`",
        ),
        (
            lambda root: (root / "annotations" / "instances_val2017.json").write_text(
                '{"images": [], "annotations": [], "categories": []}'
            ),
            r"instances_val2017.json: 0 images, not the 2 it should have",
        ),
        (lambda root: (root / "val2017" / "000000000501.jpg").rename(root / "val2017" / "1.jpg"), "501.jpg is missing"),
    ],
)
def test_what_is_not_whole_is_one_clear_line(root, damage, message):
    damage(root)
    with pytest.raises(UserError, match=message):
        write_subset(root, "coco10", seed=0)
    assert not ids_file(root, "coco10").exists()


def test_a_part_is_noted_and_the_images_of_the_subset_must_be_there(root):
    chosen = sorted(draw_share(range(1, 41), 0.10, 0))
    for path in (root / "train2017").iterdir():
        if int(path.stem) not in chosen:
            path.unlink()
    (root / "train2017" / f"{chosen[0]:012d}.jpg").unlink()
    with pytest.raises(UserError, match=r"jpg is missing; get COCO at .*, or leave such images out"):
        write_subset(root, "coco10", 0, partial=True)
    skipped = []
    subset = json.loads(write_subset(root, "coco10", 0, skipped, partial=True).read_text())
    assert [image["id"] for image in subset["images"]] == chosen[1:]
    assert subset["info"]["skipped"] == [f"{root / 'train2017'}/{chosen[0]:012d}.jpg is missing"]
    assert ids_file(root, "coco10").read_text().split() == [str(number) for number in chosen[1:]]


def test_another_number_of_labels_is_noted(root, monkeypatch):
    monkeypatch.setattr(coco_subset, "COUNTS", {"train2017": 118_287, "val2017": 5_000})
    subset = json.loads(write_subset(root, "coco5", 0, partial=True).read_text())
    assert subset["info"]["partial"] == {"found": 40, "expected": 118_287}


def test_unlabeled_images_are_counted_where_they_are(root, tmp_path):
    assert unlabeled_images(root) is None
    miniatures.coco(root, 1, 1, unlabeled=3)
    assert unlabeled_images(root) == 3


def test_images_that_cannot_be_decoded_are_named(tmp_path):
    root = miniatures.coco(tmp_path / "coco", train=1)
    for split, number in (("train2017", 1), ("val2017", 501)):
        image = root / split / f"{number:012d}.jpg"
        whole = image.read_bytes()
        image.write_bytes(whole[:1000])
        with pytest.raises(
            UserError, match=rf"{split}/{number:012d}\.jpg cannot be read as an image: it cannot be decod"
        ):
            write_subset(root, "coco5", 0, partial=True)
        image.write_bytes(whole)
