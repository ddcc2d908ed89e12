import pytest
import torch
from mmdet.models.task_modules.assigners import HungarianAssigner
from mmdet.registry import MODELS  # noqa: F401 (registers the costs)
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData

from stage2_training.engine.divergence import match_despite_nan


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_mmdetections_matching_outlives_costs_that_are_not_finite(value):
    match_despite_nan()
    with DefaultScope.overwrite_default_scope("mmdet"):
        assigner = HungarianAssigner(match_costs={"type": "BBoxL1Cost"})
    boxes = torch.tensor([[0.0, 0, 4, 4], [0, 0, 8, 8], [4, 4, 8, 8]])
    truth = InstanceData(bboxes=boxes[[2, 0]], labels=torch.tensor([1, 0]))
    meta = {"img_shape": (8, 8)}
    found = assigner.assign(InstanceData(bboxes=boxes, scores=torch.zeros(3, 2)), truth, meta)
    assert found.gt_inds.tolist() == [2, 0, 1]  # one more than the index, 0 for none
    broken = assigner.assign(InstanceData(bboxes=boxes * value, scores=torch.zeros(3, 2)), truth, meta)
    assert sorted(broken.gt_inds.tolist()) == [0, 1, 2]
