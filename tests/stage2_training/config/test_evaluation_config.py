import pytest

from stage1_proposals.common.errors import UserError
from stage2_training.config.compose import finetuning_config, pretraining_config, read_dataset
from stage2_training.config.evaluation_config import evaluation_config, image_pipeline
from stage2_training.config.overrides import Overrides


@pytest.fixture
def pretraining(write_shards, make_record, rectangles):
    """(cfg_options) -> the config of a pre-training run at the demo's size."""
    record = make_record(1, "a.png", rectangles([(0, 0, 9, 9)], 20, 20), [[0] * 320])
    shards = write_shards([[record]], backbone={"feature_dim": 320})

    def compose(*options: str):
        return pretraining_config(
            "knet_lite0", "pretrain_demo", shards, overrides=Overrides(cfg_options=options, total_batch=4)
        )

    return compose


def resized_to(config) -> list:
    pipeline = config.test_dataloader.dataset.pipeline
    return [transform.scale for transform in pipeline if transform["type"] == "Resize"]


def test_a_pretrained_model_sees_images_at_the_size_that_it_was_trained_on(pretraining):
    run = pretraining("train_dataloader.dataset.pipeline.2.scale=(96,64)")
    dataset = read_dataset("demo")
    config = evaluation_config(run, dataset, Overrides(data_root="elsewhere", workers=0), class_agnostic=True)
    assert resized_to(config) == [(96, 64)]
    assert config.test_dataloader.dataset.ann_file == "annotations/test.json"
    assert config.test_dataloader.num_workers == 0
    assert config.test_evaluator == {
        "type": "MaskAP",
        "class_agnostic": True,
        "ann_file": "elsewhere/annotations/test.json",
    }
    assert config.model == run.model
    assert "test_dataloader" not in run
    assert dataset == read_dataset("demo")


def test_images_without_a_fixed_size_are_resized_as_in_fine_tuning(pretraining):
    run = pretraining()
    del run.train_dataloader.dataset.pipeline[2]
    assert resized_to(evaluation_config(run, read_dataset("demo"))) == [(256, 256)]
    assert resized_to(evaluation_config(run, read_dataset("ctw1500"))) == [(1333, 800)]


def test_a_fine_tuned_run_is_evaluated_on_its_own_images_or_others_at_their_size():
    run = finetuning_config("knet_lite0", "demo")
    assert evaluation_config(run).test_dataloader == run.test_dataloader
    assert evaluation_config(run).test_evaluator == run.test_evaluator
    other = evaluation_config(run, read_dataset("ctw1500"), class_agnostic=True)
    assert other.test_dataloader.dataset.data_root == "data/ctw1500"
    assert resized_to(other) == [(256, 256)]
    assert other.test_evaluator.class_agnostic


def test_another_size_is_that_of_the_test_images_alone():
    """Also of Cityscapes, whose training images have no fixed size."""
    for dataset in ("ctw1500", "cityscapes"):
        run = finetuning_config("knet", dataset)
        config = evaluation_config(run, overrides=Overrides(image_size=1600))
        assert resized_to(config) == [(1600, 1600)]
        assert config.train_dataloader == run.train_dataloader


def test_a_pretraining_run_has_no_labels_of_its_own(pretraining):
    run = pretraining()
    run.work_dir = "runs/pre"
    with pytest.raises(UserError, match="runs/pre is a pre-training run, which has no labels to evaluate on"):
        evaluation_config(run)


def test_a_models_images_are_transformed_as_for_its_evaluation(pretraining):
    """Of a pre-training run, without a dataset."""
    run = pretraining("train_dataloader.dataset.pipeline.2.scale=(96,64)")
    assert image_pipeline(run) == evaluation_config(run, read_dataset("ctw1500")).test_dataloader.dataset.pipeline
    assert [transform["type"] for transform in image_pipeline(run)] == ["LoadRGBImage", "Resize", "PackDetInputs"]
    run = finetuning_config("knet_lite0", "demo")
    assert image_pipeline(run) == run.test_dataloader.dataset.pipeline
