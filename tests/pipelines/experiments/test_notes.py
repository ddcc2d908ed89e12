"""The notes of a table state the settings that its runs' configs have."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.experiments.execute import Workspace, execute
from pipelines.experiments.notes import (
    PRETRAINING,
    differences,
    paper_finetuning,
    scale_notes,
    seed_note,
    seeds_of,
    setting_notes,
    settings_of,
)
from pipelines.experiments.paper_tables import EPOCHS, TABLES
from pipelines.experiments.plan import in_order, run_for
from pipelines.experiments.scales import DEMO, PAPER, FineTuning, Scale
from stage1_proposals.shards import ShardSet
from stage2_training.config import compose
from stage2_training.config.overrides import Overrides


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
    assert differences(settings_of(config), paper_finetuning(FineTuning(model, "ctw1500", "imagenet", epochs))) == ""


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
    assert differences(settings_of(config), paper_finetuning(FineTuning("mask_rcnn", "ctw1500", "imagenet"))) == (
        "backbone tf_efficientnet_lite0 (ResNet-50), image size 192 x 192 (1333 x 800), batch 8 (96), "
        f"epochs 20 ({EPOCHS['ctw1500']}), learning rate 0.005 (0.02)"
    )


def test_of_runs_from_before_prompts_could_be_rescaled_they_have_their_own_length(shards: ShardSet) -> None:
    config = compose.pretraining_config("mask2former", "pretrain", shards)
    del config.model.saliency_prompt["rescale"]
    assert settings_of(config)["prompts' length"] == "their own"


def test_a_rows_own_epochs_are_what_the_paper_has() -> None:
    target = FineTuning("queryinst", "ctw1500", "imagenet", epochs=80)
    assert paper_finetuning(target)["epochs"] == "80"
    assert paper_finetuning(replace(target, epochs=None))["epochs"] == "96"


def test_of_cityscapes_no_size_is_known() -> None:
    assert "image size" not in paper_finetuning(FineTuning("knet", "cityscapes", "swav"))
    assert paper_finetuning(FineTuning("knet", "coco5", "swav"))["image size"] == "1333 x 800"


def targets_of(number: int):
    return [row.target for row in TABLES[number].rows if row.target]


def test_what_is_left_out_or_stood_in_for_is_said() -> None:
    assert list(scale_notes(targets_of(2), PAPER)) == []
    left_out, sets, stands, backbone = scale_notes(targets_of(2), DEMO)
    assert left_out == "Left out: DenseCL, SwAV, MoCo-v2, whose weights are those of a ResNet-50."
    assert sets.startswith("Left out: Cityscapes. ")
    assert stands.startswith("The demo set stands for CTW1500: 60 images to train on, 60 to test on, ")
    assert "lite0_imagenet, a backbone that was trained with ImageNet's labels" in backbone
    assert len(list(scale_notes([FineTuning("knet", "ctw1500", "imagenet")], DEMO))) == 1
    _, half, whole, _ = scale_notes(targets_of(1), DEMO)
    assert half.startswith("The first half of the demo set stands for COCO 5 %: 30 images to train on, 60 to test on, ")
    assert whole.startswith("The demo set stands for COCO 10 %: 60 ")
    objects, _ = scale_notes(targets_of(6), DEMO)
    assert objects.startswith("The demo set's labelled images of objects stand for COCO's val images: 60 ")


def test_freesolos_masks_are_ours_unless_they_are_given() -> None:
    assert [note[:23] for note in scale_notes(targets_of(7), PAPER)] == ["FreeSOLO here is our `f"]
    assert list(scale_notes(targets_of(7), replace(PAPER, freesolo="masks.json"))) == []


def test_the_seeds_are_said_and_what_they_are_of() -> None:
    assert "over seeds 0, 2, 5, of pre-training and fine-tuning alike, on" in seed_note(targets_of(2), [0, 2, 5])
    assert "with seed 3" in seed_note(targets_of(2), [3])
    assert seeds_of(targets_of(6), [0, 1]) == "seeds 0, 1, of pre-training, on the same images and labels"
    assert "1, of random pseudo masks, pre-training and fine-tuning alike, " in seeds_of(targets_of(7), [0, 1])


def test_settings_of_every_seed_are_told_where_they_differ(commands, tiny: Scale, tmp_path: Path) -> None:
    workspace, targets = Workspace(tmp_path), [FineTuning("knet", "ctw1500", "imagenet")]
    runs = [run_for(targets[0], tiny, seed) for seed in (0, 1)]
    execute(in_order(runs), workspace)
    (line,) = setting_notes(targets, tiny, [0, 1], workspace)
    assert line.startswith("Fine-tuning of knet_lite0, and in parentheses the paper's: backbone lite0 (ResNet-50), ")
    config = workspace.directory(runs[1]) / "config.py"
    config.write_text(config.read_text().replace("lr=0.0001", "lr=0.5"))
    first, second = setting_notes(targets, tiny, [0, 1], workspace)
    assert first.startswith("Fine-tuning of knet_lite0 (seed 0), and")
    assert second.startswith("Fine-tuning of knet_lite0 (seed 1), and")
    assert "learning rate" not in first
    assert second.endswith("learning rate 0.5 (0.0001).")
