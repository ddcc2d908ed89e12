"""The notes of a table, and that the configs have the settings that the notes name."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from pipelines.experiments.notes import notes
from pipelines.experiments.paper import FIGURES, TABLES, Experiment, Row
from pipelines.experiments.scales import DEMO, PAPER, Scale, demo_datasets
from stage1_proposals.shards import ShardSet
from stage2_training.config import compose
from stage2_training.config.overrides import Overrides

EPOCHS = {"coco10": 48, "coco5": 48, "cityscapes": 24, "ctw1500": 96}  # the paper's, where a row has no other
CNNS = ("mask_rcnn", "solov2")  # trained with SGD in the paper


def differences(ours: Mapping[str, str], paper: Mapping[str, str]) -> str:
    """Settings in both that differ, as `name ours (paper's)`."""
    return ", ".join(
        f"{name} {ours[name]} ({paper[name]})" for name in paper if name in ours and ours[name] != paper[name]
    )


def settings_of(config: Mapping[str, Any]) -> Mapping[str, str]:
    """The settings of a composed config that are compared with the paper's."""
    model, training = config["model"], config["train_dataloader"]["dataset"]
    optimizer = config["optim_wrapper"]["optimizer"]
    resize = next(step for step in training["pipeline"] if step["type"] == "Resize")
    settings = {
        "backbone": model["backbone"].get("model_name") or f"ResNet-{model['backbone']['depth']}",
        "image size": " x ".join(map(str, resize["scale"])),
        "batch": str(config["train_cfg"]["total_batch"]),
        "epochs": str(config["train_cfg"]["max_epochs"]),
        "optimizer": optimizer["type"],
        "learning rate": f"{optimizer['lr']:g}",
    }
    if "pseudo_labels" in config:
        settings["images"] = f"{config['pseudo_labels']['images']:,}"
    if "saliency_prompt" in model:
        settings["prompts' length"] = "the kernels'" if model["saliency_prompt"].get("rescale") else "their own"
    for part, number in (("rpn_head", "num_kernels"), ("rpn_head", "num_proposals"), ("panoptic_head", "num_queries")):
        if number in model.get(part, {}):
            settings["kernels or queries"] = str(model[part][number])
    return settings


# The paper's settings of pre-training; the image size is that of the authors' later release.
PRETRAINING = {
    "backbone": "ResNet-50",
    "images": "123,403",  # COCO unlabeled2017
    "image size": "1333 x 800",
    "kernels or queries": "100",
    "batch": "96",
    "epochs": "12",
    "prompts' length": "their own",  # Eq. 8
    "optimizer": "AdamW",
    "learning rate": "0.0001",
}


def paper_finetuning(target: Row) -> Mapping[str, str]:
    """The paper's settings of fine-tuning; it does not state the image size of Cityscapes."""
    epochs = {"epochs": str(target.epochs or EPOCHS[target.dataset])}
    sgd = {"optimizer": "SGD", "learning rate": "0.02"} if target.model in CNNS else {}
    settings = {**PRETRAINING, **epochs, **sgd}
    return {name: v for name, v in settings.items() if name != "image size" or target.dataset != "cityscapes"}


@pytest.fixture
def shards(write_shards: Callable[..., ShardSet], make_record, rectangles) -> ShardSet:
    record = make_record(1, "1.png", rectangles([(0, 0, 8, 8)], 16, 16), [[1, 2, 3, 4]])
    return write_shards([[record]], images=False)


@pytest.mark.parametrize("model", ["knet", "queryinst", "mask2former"])
def test_the_papers_scale_pre_trains_as_the_paper_but_for_the_images_there_are(model: str, shards: ShardSet) -> None:
    config = compose.pretraining_config(model, "pretrain", shards)
    length = ", prompts' length the kernels' (their own)" if model == "knet" else ""
    assert differences(settings_of(config), PRETRAINING) == "images 1 (123,403)" + length


@pytest.mark.parametrize(
    ("model", "epochs"), [("knet", None), ("queryinst", 80), ("mask2former", 80), ("mask_rcnn", None), ("solov2", None)]
)
def test_the_papers_scale_fine_tunes_as_the_paper(model: str, epochs: int | None) -> None:
    config = compose.finetuning_config(model, "ctw1500", init="imagenet")
    assert differences(settings_of(config), paper_finetuning(Row(model, "ctw1500", "imagenet", epochs=epochs))) == ""


def test_the_demos_differences_are_all_named(shards: ShardSet) -> None:
    config = compose.pretraining_config("knet_lite0", "pretrain_demo", shards, overrides=Overrides(image_size=192))
    assert differences(settings_of(config), PRETRAINING) == (
        "backbone tf_efficientnet_lite0 (ResNet-50), images 1 (123,403), image size 192 x 192 (1333 x 800), "
        "kernels or queries 50 (100), batch 8 (96), epochs 6 (12), prompts' length the kernels' (their own), "
        "learning rate 0.0004 (0.0001)"
    )
    config = compose.finetuning_config(
        "mask_rcnn_lite0", "demo", "finetune_demo", overrides=Overrides(image_size=192, epochs=20)
    )
    assert differences(settings_of(config), paper_finetuning(Row("mask_rcnn", "ctw1500", "imagenet"))) == (
        "backbone tf_efficientnet_lite0 (ResNet-50), image size 192 x 192 (1333 x 800), batch 8 (96), "
        f"epochs 20 ({EPOCHS['ctw1500']}), learning rate 0.005 (0.02)"
    )


def test_a_rows_own_epochs_are_what_the_paper_has() -> None:
    target = Row("queryinst", "ctw1500", "imagenet", epochs=80)
    assert paper_finetuning(target)["epochs"] == "80"
    assert paper_finetuning(replace(target, epochs=None))["epochs"] == "96"


def test_of_cityscapes_no_size_is_known() -> None:
    assert "image size" not in paper_finetuning(Row("knet", "cityscapes", "swav"))
    assert paper_finetuning(Row("knet", "coco5", "swav"))["image size"] == "1333 x 800"


def notes_of(experiment: Experiment, scale: Scale, *seeds: int) -> list[str]:
    return list(notes(experiment, scale, seeds))


def test_what_is_left_out_is_said_where_it_is() -> None:
    assert notes_of(TABLES[2], PAPER, 0) == [
        "One run each, with seed 0: the spread is unknown, as in the paper.",
        "CTW1500 is tested at 1333 x 800 after the last epoch; the authors' later release tests at 1600 and reports "
        "the best epoch (`make evaluate OPTS='--image-size 1600'`).",
        "An epoch of Cityscapes takes each image 8 times on a GPU, as the later release does: 192 passes in all.",
        "K-Net's prompts have the length of its kernels, the paper's their own.",
        "Scores also tell the best of several masks of one object (docs/models.md), the paper's do not.",
    ]
    left = {
        n: [note for note in notes_of(table, DEMO, 0) if note.startswith("Left out")] for n, table in TABLES.items()
    }
    backbones = "Left out: DenseCL, SwAV, MoCo-v2, whose weights are a ResNet-50's."
    cityscapes = "Left out: Cityscapes, which would be the demo set again."
    assert left[1] == [backbones]
    assert set(left[2]) == {backbones.replace(", MoCo-v2", ""), cityscapes} or set(left[2]) == {backbones, cityscapes}
    assert all(left[n] == [] for n in (4, 5, 6, 7))
    assert all(note in notes_of(FIGURES[4], DEMO, 0) for note in (cityscapes,))


def test_what_stands_for_the_labelled_data_is_said() -> None:
    replaced = {
        n: next(note for note in notes_of(table, DEMO, 0) if "labelled dataset" in note) for n, table in TABLES.items()
    }
    halves = [n for n, note in replaced.items() if "half of them for COCO 5 %" in note]
    assert halves == [1]
    assert replaced[6].startswith("Images like the unlabeled ones, with the objects pasted on them labelled")
    assert all(
        note.startswith("The demo set replaces the labelled datasets: 60 images")
        for n, note in replaced.items()
        if n != 6
    )
    few = notes_of(TABLES[1], replace(DEMO, datasets=demo_datasets(9, 8, 7)), 0)
    assert any(": 8 images to train on, half of them for COCO 5 %, 7 to test on, " in note for note in few)


def test_a_table_has_its_own_notes() -> None:
    def tables_with(text: str, scale: Scale) -> list[int]:
        return [n for n, table in TABLES.items() if text in " ".join(notes_of(table, scale, 0))]

    assert tables_with("Without prompts (PROMPTS=off) there is no kernel supervision", PAPER) == [5, 7]
    assert tables_with("FreeSOLO is our `freemask`", PAPER) == [7]
    assert tables_with("FreeSOLO is our `freemask`", replace(PAPER, freesolo="masks.json")) == []
    assert tables_with("for SwAV", PAPER) == [1]
    assert tables_with("for SwAV", DEMO) == []
    assert tables_with("K-Net's prompts", DEMO) == [1, 2, 4, 5, 6, 7]
    assert tables_with("Epochs of fine-tuning", DEMO) == [1, 2, 3, 4, 5, 7]
    assert tables_with("Epochs", PAPER) == []


def test_the_seeds_are_said() -> None:
    spread = "Mean ± sample standard deviation over seeds 0, 2, 5; images and labels are the same for all seeds."
    assert notes_of(TABLES[2], PAPER, 0, 2, 5)[0] == spread
    assert notes_of(FIGURES[3], PAPER, 0, 2)[0].startswith(
        "Lines are means, bands go from the lowest run to the highest,"
    )
    assert notes_of(FIGURES[6], PAPER, 3, 1)[0].startswith("One run each, with seed 3, the first of 3, 1: ")
    assert notes_of(TABLES[2], PAPER, 3)[0].startswith("One run each, with seed 3: ")


def test_the_epochs_of_the_scale_are_said() -> None:
    assert notes_of(TABLES[2], DEMO, 0)[-2:] == [
        "Epochs of pre-training: 6 (the paper: 12).",
        "Epochs of fine-tuning: at most 20 (the paper: 24 to 96, by dataset).",
    ]
    assert "Epochs of pre-training: 3 (the paper: 12)." in notes_of(TABLES[2], replace(PAPER, pretrain_epochs=3), 0)
