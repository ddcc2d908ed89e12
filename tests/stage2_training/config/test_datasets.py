import os
import subprocess
import sys
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
    assert config.train_cfg.max_epochs == 400  # of one step each
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


MISTAKES = """
import sys
from stage1_proposals.common.errors import UserError
from stage2_training.config.datasets import open_dataset
from stage2_training.runs.init_options import check_init

open("labels.json", "w").write("{")
mistakes = (lambda: open_dataset("labels.json"), lambda: check_init("densecll"), lambda: check_init("sp", weights="w"))
for task in mistakes:
    try:
        task()
    except UserError as error:
        print(error)
print("torch" in sys.modules, "mmengine" in sys.modules)
"""


def test_mistakes_in_labels_and_initial_weights_are_told_without_pytorch(tmp_path):
    """It takes seconds to import."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    run = subprocess.run(
        [sys.executable, "-c", MISTAKES], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    labels, init, weights, imported = run.stdout.splitlines()
    assert "labels.json" in labels
    assert init.startswith("--init densecll: use scratch, imagenet, densecl, swav, mocov2, sp, pseudo or coco, or a")
    assert weights == "--weights goes with --init imagenet, densecl, swav or mocov2, not sp"
    assert imported == "False False"
