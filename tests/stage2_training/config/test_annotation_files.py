"""Unusable labels are refused before training."""

import json

import pytest
from mmengine.config import Config

from stage1_proposals.common.errors import UserError
from stage2_training.config.annotation_files import check_annotations, label_hashes
from stage2_training.config.compose import finetuning_config
from stage2_training.config.overrides import Overrides


def test_labels_that_are_not_there_are_named(tmp_path):
    config = finetuning_config("knet", "ctw1500", overrides=Overrides(data_root=str(tmp_path)))
    with pytest.raises(UserError, match=r"annotations/test\.json: no such file; `make data`"):
        check_annotations(config, ["val", "train"])


def test_labels_without_the_datasets_class_are_refused(tmp_path):
    (tmp_path / "annotations").mkdir()
    for split in ("train", "test"):
        labels = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "txt"}]}
        (tmp_path / "annotations" / f"{split}.json").write_text(json.dumps(labels))
    config = finetuning_config("knet", "ctw1500", overrides=Overrides(data_root=str(tmp_path)))
    with pytest.raises(UserError, match=r"train\.json: has no category 'text'; it has 'txt'"):
        check_annotations(config, ["train", "val"])


IMAGE = {"id": 1, "file_name": "1.jpg", "height": 9, "width": 9}
TEXT, OTHER = {"id": 1, "name": "text"}, {"id": 2, "name": "other"}


def annotation(image: int, category: int, crowd: int) -> dict:
    return {"id": 1, "image_id": image, "category_id": category, "iscrowd": crowd}


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"images": [IMAGE]}, "not COCO JSON, it has no list `annotations`"),
        ({"annotations": []}, "not COCO JSON, it has no list `images`"),
        ({"images": [IMAGE], "annotations": ["a"]}, r"annotations\[0\] has no `image_id`"),
        ({"images": [IMAGE], "annotations": None}, "not COCO JSON, it has no list `annotations`"),
        ({"images": [], "annotations": []}, "has no images"),
        ({"images": [IMAGE], "annotations": []}, "nothing to train on; its images have no object of 'text'"),
        ({"images": [IMAGE], "annotations": [annotation(1, 1, 1)]}, "nothing to train on"),
        ({"images": [IMAGE], "annotations": [annotation(1, 2, 0)]}, "nothing to train on"),
        ({"images": [IMAGE], "annotations": [annotation(7, 1, 0)]}, "nothing to train on"),
    ],
)
def test_labels_without_an_object_are_refused(tmp_path, labels, message):
    path = tmp_path / "annotations" / "train.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"categories": [TEXT, OTHER], **labels}))
    config = finetuning_config("knet", "ctw1500", overrides=Overrides(data_root=str(tmp_path)))
    with pytest.raises(UserError, match=rf"train\.json: {message}"):
        check_annotations(config, ["train"])


def test_one_object_is_enough_to_train_and_to_evaluate_on_and_none_is_not(tmp_path):
    (tmp_path / "annotations").mkdir()

    def write(split, annotations):
        labels = {"images": [IMAGE], "annotations": annotations, "categories": [TEXT]}
        (tmp_path / "annotations" / f"{split}.json").write_text(json.dumps(labels))

    config = finetuning_config("knet", "ctw1500", overrides=Overrides(data_root=str(tmp_path)))
    for split in ("train", "test"):
        write(split, [annotation(1, 1, 1), annotation(1, 1, 0)])
    check_annotations(config, ["train", "val", "test"])
    write("test", [annotation(1, 1, 1)])
    for part in ("val", "test"):
        with pytest.raises(UserError, match=r"test\.json: nothing to evaluate on; its images have no object of 'text'"):
            check_annotations(config, ["train", part])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"iscrowd": "0"}, r"annotation 1 of image '1\.jpg': `iscrowd` is neither 0 nor 1"),
        ({"area": "20"}, r"annotation 1 of image '1\.jpg': `area` is text"),
        ({"image_id": "1"}, r"annotations\[1\] has the `image_id` '1' and its image the `id` 1; write both as numbers"),
    ],
)
def test_every_object_is_read_before_training(tmp_path, change, message):
    path = tmp_path / "annotations" / "train.json"
    path.parent.mkdir()
    objects = [annotation(1, 1, 0), annotation(1, 1, 0) | change]
    path.write_text(json.dumps({"images": [IMAGE], "annotations": objects, "categories": [TEXT]}))
    config = finetuning_config("knet", "ctw1500", overrides=Overrides(data_root=str(tmp_path)))
    with pytest.raises(UserError, match=rf"train\.json: {message}"):
        check_annotations(config, ["train"])


def test_classes_in_another_order_are_refused(tmp_path):
    """MMDetection numbers classes by their order in each file: in another order, classes would be confused."""
    metainfo = {"classes": ("text", "other")}
    part = {"dataset": {"data_root": str(tmp_path), "ann_file": "a.json", "metainfo": metainfo}}
    config = Config({"val_dataloader": part})

    def check(*names: str) -> None:
        categories = [{"id": number, "name": name} for number, name in enumerate(names)]
        objects = [annotation(1, number, 0) for number in range(len(names))]
        labels = {"images": [IMAGE], "annotations": objects, "categories": categories}
        (tmp_path / "a.json").write_text(json.dumps(labels))
        check_annotations(config, ["val"])

    check("text", "other")
    check("more", "text", "between", "other")
    with pytest.raises(UserError, match=r"a\.json: has 'other' where the dataset's classes have 'text'; give them as"):
        check("other", "text")
    with pytest.raises(UserError, match=r"a\.json: categories\[1\] and categories\[2\] have the same name 'other'"):
        check("text", "other", "other")


def test_labels_are_known_by_their_hash(tmp_path):
    part = {"dataset": {"data_root": str(tmp_path), "ann_file": "a.json"}}
    config = Config({"train_dataloader": part, "val_dataloader": {"dataset": {}}})
    assert label_hashes(config) == {"train": None, "val": None}
    (tmp_path / "a.json").write_text("abc")
    assert label_hashes(config) == {"train": "ba7816bf8f01cfea", "val": None}
