import math

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from stage2_training.config.compose import finetuning_config
from stage2_training.config.overrides import Overrides
from stage2_training.models.unique_objects import unique_objects, unique_scores
from stage2_training.runs.train import build_model

DUPLICATE = math.exp(-2)  # the decay at sigma 2 and IoU 1


def test_of_the_masks_of_one_object_the_best_keeps_its_score() -> None:
    masks = torch.zeros(1, 4, 16, 24, dtype=torch.bool)
    masks[0, :3, :8] = True  # three in the upper half, the third of another class
    masks[0, 3, 8:] = True
    scores, labels = torch.tensor([[0.6, 0.8, 0.4, 0.5]]), torch.tensor([[0, 0, 1, 0]])
    found = unique_scores(scores, labels, masks, torch.tensor([[16, 24]]))
    torch.testing.assert_close(found, torch.tensor([[0.6 * DUPLICATE, 0.8, 0.4, 0.5]]))


def test_masks_are_compared_inside_the_image_alone() -> None:
    masks = torch.zeros(1, 2, 16, 24, dtype=torch.bool)
    masks[..., 2:5, 3:6] = True
    masks[0, 1, 8:, 12:] = True  # in the padding
    scores, labels = torch.tensor([[0.8, 0.6]]), torch.zeros(1, 2, dtype=torch.long)
    found = unique_scores(scores, labels, masks, torch.tensor([[8, 12]]))
    torch.testing.assert_close(found, torch.tensor([[0.8, 0.6 * DUPLICATE]]))


def test_the_best_come_first_with_what_belongs_to_them() -> None:
    masks = torch.zeros(3, 16, 16, dtype=torch.bool)
    masks[:2, :8] = True
    masks[2, 8:] = True
    found = InstanceData(scores=torch.tensor([0.9, 0.8, 0.3]), labels=torch.zeros(3, dtype=torch.long), masks=masks)
    found = unique_objects(found)
    torch.testing.assert_close(found.scores, torch.tensor([0.9, 0.3, 0.8 * DUPLICATE]))
    assert torch.equal(found.masks, masks[[0, 2, 1]])


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "setting"),
    [("queryinst_lite0", "rcnn.rescore"), ("mask2former_lite0", "rescore"), ("maskformer_lite0", "rescore")],
)
def test_models_without_suppression_get_it(name: str, setting: str) -> None:
    """By default; `rescore=False` leaves MMDetection's scores."""
    found = {}
    for rescore in (True, False):
        one_piece = f"model.test_cfg.{setting.replace('rescore', 'one_piece')}=False"
        overrides = Overrides(cfg_options=[one_piece, *([] if rescore else [f"model.test_cfg.{setting}=False"])])
        torch.manual_seed(0)
        model = build_model(finetuning_config(name, "demo", "finetune_demo", overrides=overrides)).eval()
        sample = DetDataSample(
            metainfo={
                "img_shape": (64, 96),
                "ori_shape": (64, 96),
                "batch_input_shape": (64, 96),
                "scale_factor": (1.0, 1.0),
            }
        )
        images = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
        found[rescore] = model.predict(images, [sample])[0].pred_instances
    expected = unique_objects(found[False])
    torch.testing.assert_close(found[True].scores, expected.scores)
    assert torch.equal(found[True].masks, expected.masks)
    assert (found[True].scores.diff() <= 0).all()
