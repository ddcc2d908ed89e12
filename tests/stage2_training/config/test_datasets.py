from pathlib import Path

import pytest

from stage1_proposals.common.errors import UserError
from stage2_training.config.compose import finetuning_config, read_dataset
from stage2_training.config.datasets import open_dataset
from stage2_training.labels.custom import CustomDatasetOptions
from tests import miniatures


@pytest.fixture(autouse=True)
def working_folder(tmp_path, monkeypatch):
    """Labels of the user's own are written below it."""
    monkeypatch.chdir(tmp_path)


def test_a_name_is_that_of_a_fragment_whatever_folders_there_are(tmp_path):
    (tmp_path / "ctw1500").mkdir()
    assert open_dataset("ctw1500").fragment == read_dataset("ctw1500")


def test_labels_of_ones_own_become_a_fragment(tmp_path, capsys):
    labelled = open_dataset(str(miniatures.labelme(tmp_path / "mine")))
    assert labelled.remarks == ("1 of 5 images are held out for evaluation (--held-out-seed 0)",)
    config = finetuning_config("knet_lite0", labelled.fragment)
    assert config.train_dataloader.dataset.metainfo.classes == ("cat", "dog")
    assert config.train_cfg.max_epochs == 48
    assert None not in config.labels.values()
    assert capsys.readouterr().out == ""


def test_options_for_labels_of_ones_own_do_not_go_with_a_fragment():
    with pytest.raises(UserError, match=r"^--test-labels, .* go with labels of your own, not ctw1500$"):
        open_dataset("ctw1500", options=CustomDatasetOptions(classes=("text",)))
    assert open_dataset("ctw1500", options=CustomDatasetOptions())


def test_a_custom_dataset_states_what_datasets_decide(tmp_path):
    miniatures.coco(tmp_path / "set")
    labels = tmp_path / "set" / "annotations" / "instances_train2017.json"
    values = open_dataset(str(labels)).fragment
    assert values["train_cfg"] == {"max_epochs": 48}
    train, val = (values[f"{part}_dataloader"]["dataset"] for part in ("train", "val"))
    assert Path(train["ann_file"]).is_absolute()  # so that another data_root is one of the images alone
    assert train["data_root"] == val["data_root"] == str(tmp_path / "set" / "train2017")
    assert len(train["metainfo"]["classes"]) == 80
