import json
import os
from pathlib import Path

import pytest

from stage1_proposals.common.errors import UserError
from stage2_training.labels.custom import CustomDatasetOptions, is_custom, name_of, prepare
from tests import miniatures


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A working folder, in which the datasets are written."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def labels(tmp_path):
    """COCO's twelve training images, of which three have no object."""
    miniatures.coco(tmp_path / "set")
    return str(tmp_path / "set" / "annotations" / "instances_train2017.json")


def read(path):
    return json.loads(path.read_text())


def test_a_fifth_is_held_out_by_seed(labels):
    prepared = prepare(labels)
    train, test = read(prepared.train), read(prepared.test)
    names = [{image["file_name"] for image in half["images"]} for half in (train, test)]
    assert [len(half) for half in names] == [10, 2]
    assert not names[0] & names[1]
    assert prepared.remarks == ("2 of 12 images are held out for evaluation (--held-out-seed 0)",)
    for half in (train, test):
        ids = {image["id"] for image in half["images"]}
        assert {annotation["image_id"] for annotation in half["annotations"]} <= ids
        assert [annotation["id"] for annotation in half["annotations"]] == list(range(1, len(half["annotations"]) + 1))
        assert [category["name"] for category in half["categories"]] == list(prepared.classes)
    whole = read(Path(labels))
    assert len(train["annotations"]) + len(test["annotations"]) == len(whole["annotations"])
    assert prepared.train_images == prepared.test_images == Path(labels).parents[1] / "train2017"
    assert prepare(labels) == prepared
    other = read(prepare(labels, options=CustomDatasetOptions(held_out_seed=1)).test)
    assert {image["file_name"] for image in other["images"]} != names[1]


def test_another_image_moves_few_others(labels):
    """Name and seed alone decide on an image, so most images stay in their half."""
    before = {image["file_name"] for image in read(prepare(labels).test)["images"]}
    whole = read(Path(labels))
    whole["images"].append({"id": 99, "file_name": "99.jpg", "height": 48, "width": 64})
    miniatures.image(99, Path(labels).parents[1] / "train2017" / "99.jpg")
    Path(labels).write_text(json.dumps(whole))
    after = {image["file_name"] for image in read(prepare(labels).test)["images"]}
    assert len(before - after) <= 1


def test_other_labels_are_other_files(labels):
    first = prepare(labels)
    text = first.train.read_text()
    whole = read(Path(labels))
    whole["annotations"][3]["iscrowd"] = 1
    Path(labels).write_text(json.dumps(whole))
    second = prepare(labels)
    assert second.train != first.train
    assert first.train.read_text() == text
    assert first.train.parent.parent == Path("data/own")


def test_test_labels_may_be_given_with_their_own_ids_and_order_of_classes(labels, tmp_path):
    test = read(tmp_path / "set" / "annotations" / "instances_val2017.json")
    names = {category["id"]: category["name"] for category in test["categories"]}
    # Other ids in another order, and a class that training does not have.
    test["categories"] = [{"id": 7, "name": "unicorn"}] + [
        {"id": 100 + number, "name": name} for number, name in reversed(names.items())
    ]
    expected = [names[annotation["category_id"]] for annotation in test["annotations"]]
    for annotation in test["annotations"]:
        annotation["category_id"] += 100
    test["annotations"].append({**test["annotations"][0], "category_id": 7})
    path = tmp_path / "test.json"
    path.write_text(json.dumps(test))
    val2017 = tmp_path / "set" / "val2017"
    val2017.rename(tmp_path / "images")
    prepared = prepare(labels, options=CustomDatasetOptions(test_labels=str(path)))
    train, found = read(prepared.train), read(prepared.test)
    assert len(train["images"]) == 12
    assert found["categories"] == train["categories"]
    ids = {category["id"]: category["name"] for category in found["categories"]}
    assert sorted(ids[annotation["category_id"]] for annotation in found["annotations"]) == sorted(expected)
    assert prepared.test_images == tmp_path / "images"
    assert prepared.remarks == (f"{path}: unicorn: no class of {labels}, not evaluated",)


def test_images_in_both_halves_are_reported(labels):
    remarks = prepare(labels, options=CustomDatasetOptions(test_labels=labels)).remarks
    assert remarks == (f"12 of the 12 test images are among those of {labels}",)


def test_classes_are_chosen_by_name(labels):
    prepared = prepare(labels, options=CustomDatasetOptions(classes=("toothbrush",)))
    assert prepared.classes == ("toothbrush",)
    train = read(prepared.train)
    assert train["categories"] == [{"id": 90, "name": "toothbrush"}]
    assert {annotation["category_id"] for annotation in train["annotations"]} == {90}
    assert len(train["images"]) == 10
    with pytest.raises(UserError, match=r"--classes unicorn: .*json has no such class; it has person, bicycle"):
        prepare(labels, options=CustomDatasetOptions(classes=("person", "unicorn")))


def test_skipped_images_are_reported_and_recorded(labels, tmp_path):
    (tmp_path / "set" / "train2017" / "000000000005.jpg").unlink()
    with pytest.raises(UserError, match=r"000000000005\.jpg is missing"):
        prepare(labels)
    prepared = prepare(labels, options=CustomDatasetOptions(skip_malformed=True))
    (note,) = read(prepared.train)["info"]["skipped"]
    assert "000000000005.jpg is missing" in note
    assert prepared.remarks[1:] == (f"left out: {note}",)
    remarks = prepare(labels, options=CustomDatasetOptions(test_labels=labels, skip_malformed=True)).remarks
    assert remarks[1:] == (f"left out: {note}",)


def test_a_labelme_folder_is_a_dataset(tmp_path):
    prepared = prepare(str(miniatures.labelme(tmp_path / "my images")))
    assert prepared.classes == ("cat", "dog")
    assert prepared.train.parent.name.startswith("my images-")
    assert [len(read(half)["images"]) for half in (prepared.train, prepared.test)] == [4, 1]


def test_unusable_labels_are_one_clear_line(tmp_path, labels):
    miniatures.labelme(tmp_path / "one", images=1)
    with pytest.raises(UserError, match="one: 1 images are too few to hold out any: give --test-labels"):
        prepare(str(tmp_path / "one"))
    miniatures.labelme_file(tmp_path / "none", 1, [])
    with pytest.raises(UserError, match="none: has no classes"):
        prepare(str(tmp_path / "none"))
    with pytest.raises(UserError, match=r"nowhere.json: cannot be read \(No such file"):
        prepare("nowhere.json")
    with pytest.raises(UserError, match="--data-root nowhere: no such folder"):
        prepare(labels, "nowhere")


def test_custom_datasets_are_recognised_by_their_path(tmp_path, monkeypatch):
    assert is_custom("a/b.json")
    assert is_custom(str(tmp_path))
    assert not is_custom("ctw1500")
    assert not is_custom("a/b.py")
    assert name_of("a/b.json") == "b"
    assert name_of("ctw1500") == "ctw1500"
    monkeypatch.chdir(tmp_path)
    assert name_of(".") == tmp_path.name


def own(folder, images, objects_in, **changes):
    """COCO JSON of `images` images, of which those in `objects_in` have an object."""
    entries = [{"id": number, "file_name": f"{number}.png"} for number in range(images)]
    for entry in entries:
        miniatures.image(entry["id"], folder / entry["file_name"])
    triangle = [[4, 4, 30, 4, 30, 30]]
    objects = [{"image_id": number, "category_id": 1, "segmentation": triangle} for number in objects_in]
    labels = {"images": entries, "annotations": objects, "categories": [{"id": 1, "name": "cat"}], **changes}
    path = folder / "labels.json"
    path.write_text(json.dumps(labels))
    return str(path)


def test_the_only_object_in_the_held_out_image_is_said(tmp_path):
    (tmp_path / "set").mkdir()
    path = own(tmp_path / "set", 2, [0, 1])
    (held_out,) = read(prepare(path).test)["images"]
    number, other = held_out["id"], 1 - held_out["id"]
    with pytest.raises(
        UserError,
        match=rf"nothing to train on; all 1 objects are in the images held out for evaluation \(1 of 2, "
        rf"'{number}\.png' first\); hold out others with --held-out-seed, or give --test-labels",
    ):
        prepare(own(tmp_path / "set", 2, [number]))
    with pytest.raises(UserError, match=r"nothing to evaluate on; no object is in the images held out"):
        prepare(own(tmp_path / "set", 2, [other]))
    with pytest.raises(UserError, match=r"nothing to train on; its images have no object of 'cat'"):
        prepare(own(tmp_path / "set", 2, []))
    crowd = {"image_id": 0, "category_id": 1, "segmentation": [[4, 4, 30, 4, 30, 30]], "iscrowd": 1}
    with pytest.raises(UserError, match=r"have no object of 'cat'; 1 are ignored \(`iscrowd` or `ignore` is 1\)"):
        prepare(own(tmp_path / "set", 2, [], annotations=[crowd]))


def test_test_labels_without_an_object_of_the_classes_are_refused(tmp_path, labels):
    (tmp_path / "other").mkdir()
    other = own(tmp_path / "other", 2, [0, 1], categories=[{"id": 1, "name": "unicorn"}])
    with pytest.raises(UserError, match=rf"{other}: nothing to evaluate on; its images have no object of 'person', "):
        prepare(labels, options=CustomDatasetOptions(test_labels=other))


def test_classes_that_differ_by_case_are_said(tmp_path):
    entries = [miniatures.shape("polygon", name, [[4, 4], [30, 4], [30, 30]]) for name in ("cat", "Cat", "dog")]
    for number in range(3):
        miniatures.labelme_file(tmp_path / "set", number, entries)
    prepared = prepare(str(tmp_path / "set"))
    assert prepared.classes == ("Cat", "cat", "dog")
    assert prepared.remarks[0] == f"{tmp_path}/set: 'Cat' and 'cat' are 2 classes; their names differ by case alone"


def test_remarks_on_both_labels_are_passed_on(tmp_path):
    categories = [{"id": 0, "name": "pets"}, {"id": 1, "name": "cat", "supercategory": "pets"}]
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    path, test = (own(tmp_path / name, 2, [0, 1], categories=categories) for name in ("a", "b"))
    remarks = prepare(path, options=CustomDatasetOptions(test_labels=test)).remarks
    assert [remark.partition(":")[0] for remark in remarks] == [path, test]
    assert all("category 'pets' is left out" in remark for remark in remarks)


def test_classes_that_look_the_same_are_said(tmp_path):
    entries = [miniatures.shape("polygon", f"caf{end}", [[4, 4], [30, 4], [30, 30]]) for end in ("\u00e9", "e\u0301")]
    for number in range(2):
        miniatures.labelme_file(tmp_path / "set", number, entries)
    remark = prepare(str(tmp_path / "set")).remarks[0]
    assert remark == (
        f"{tmp_path}/set: 'cafe\\u0301' and 'caf\\xe9' are 2 classes; their names differ by Unicode normal form alone"
    )


def test_names_that_are_no_text_are_refused(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    broken = own(folder, 2, [0, 1], categories=[{"id": 1, "name": "cat\ud83d"}])
    with pytest.raises(UserError, match=r"the class 'cat\\ud83d' has a name that is no Unicode text; rename it$"):
        prepare(broken)
    miniatures.labelme(tmp_path / "mine" / os.fsdecode(b"caf\xe9"))
    with pytest.raises(UserError, match=r"mine: the image 'caf\\udce9/images/0\.png' has a name that is no Unicode"):
        prepare(str(tmp_path / "mine"))


def test_images_left_out_may_have_any_name(tmp_path):
    miniatures.labelme(tmp_path / "mine")
    path = miniatures.labelme_file(tmp_path / "mine" / os.fsdecode(b"caf\xe9"), 9, [])
    path.write_text("{")
    prepared = prepare(str(tmp_path / "mine"), options=CustomDatasetOptions(skip_malformed=True))
    (note,) = read(prepared.train)["info"]["skipped"]
    assert "caf\\udce9/labels/9.json: not JSON" in note


def test_training_labels_without_an_object_are_refused_for_training_alone(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    train, test = own(tmp_path / "a", 2, []), own(tmp_path / "b", 2, [0, 1])
    options = CustomDatasetOptions(test_labels=test)
    assert prepare(train, options=options).classes == ("cat",)
    with pytest.raises(UserError, match=rf"{train}: nothing to train on; its images have no object of 'cat'$"):
        prepare(train, options=options, for_training=True)


def test_a_yolo_set_is_evaluated_on_its_own_val(tmp_path):
    path = miniatures.yolo(tmp_path / "cells")
    for dataset in (str(path), str(path.parent)):
        assert is_custom(dataset)
        assert name_of(dataset) == "cells"
        prepared = prepare(dataset)
        assert [image["file_name"] for image in read(prepared.test)["images"]] == ["images/val/4.png"]
        assert len(read(prepared.train)["images"]) == 4
        assert prepared.classes == ("cat", "dog")
        assert prepared.remarks == ("the 1 images of `val` are those of evaluation",)
    everything = prepare(str(path), options=CustomDatasetOptions(test_labels=str(path)))
    assert everything.remarks == (f"4 of the 4 test images are among those of {path}",)


def test_a_yolo_set_without_val_is_divided(tmp_path):
    prepared = prepare(str(miniatures.yolo(tmp_path / "cells", train=6, val=0)))
    assert [len(read(half)["images"]) for half in (prepared.train, prepared.test)] == [5, 1]
    assert prepared.remarks == ("1 of 6 images are held out for evaluation (--held-out-seed 0)",)
