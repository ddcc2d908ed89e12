import json

import pytest
import torch
from stage2_training.runs.transfer import name_backbone, plan_transfer

from stage1_proposals.common.errors import UserError


def state(**shapes: tuple[int, ...]) -> dict[str, torch.Tensor]:
    return {name.replace("__", "."): torch.full(shape, float(len(name))) for name, shape in shapes.items()}


SOURCE = state(
    backbone__conv1__weight=(4, 3),
    rpn_head__init_kernels__weight=(10, 8),
    rpn_head__conv_seg__weight=(1, 8),
    roi_head__mask_head__0__fc_cls__weight=(1, 8),
    roi_head__mask_head__0__fc_mask__weight=(8, 8),
    kernel_supervision__linear__weight=(8, 2),
)
TARGET = state(
    backbone__conv1__weight=(4, 3),
    rpn_head__init_kernels__weight=(10, 8),
    rpn_head__conv_seg__weight=(3, 8),
    roi_head__mask_head__0__fc_cls__weight=(3, 8),
    roi_head__mask_head__0__fc_mask__weight=(8, 8),
    neck__extra__weight=(1,),
)
ESSENTIAL = ("rpn_head.init_kernels", "roi_head.mask_head")


def test_takes_what_fits_and_says_why_the_rest_is_left():
    transfer = plan_transfer(SOURCE, TARGET)
    assert set(transfer.taken) == {
        "backbone.conv1.weight",
        "rpn_head.init_kernels.weight",
        "roi_head.mask_head.0.fc_mask.weight",
    }
    assert all(transfer.taken[name] is SOURCE[name] for name in transfer.taken)
    assert transfer.left == {
        "rpn_head.conv_seg.weight": "class branch: shape (1, 8), the model's is (3, 8)",
        "roi_head.mask_head.0.fc_cls.weight": "class branch: shape (1, 8), the model's is (3, 8)",
        "kernel_supervision.linear.weight": "the model has no such tensor",
    }
    assert set(transfer.missing) == {
        "rpn_head.conv_seg.weight",
        "roi_head.mask_head.0.fc_cls.weight",
        "neck.extra.weight",
    }


def test_class_branches_of_the_same_shape_are_taken():
    transfer = plan_transfer(SOURCE, SOURCE)
    assert set(transfer.taken) == set(SOURCE)
    assert not transfer.left
    assert not transfer.missing


def test_class_branches_may_be_missing_but_nothing_else_that_is_needed():
    plan_transfer(SOURCE, TARGET).require(ESSENTIAL, "a.pth", "hint")
    lost = {name: value for name, value in SOURCE.items() if "init_kernels" not in name}
    with pytest.raises(UserError, match=r"a\.pth: 1 tensors .* rpn_head\.init_kernels\.weight \(not in .*\); hint"):
        plan_transfer(lost, TARGET).require(ESSENTIAL, "a.pth", "hint")
    narrow = SOURCE | {"roi_head.mask_head.0.fc_mask.weight": torch.ones(4, 4)}
    with pytest.raises(UserError, match=r"fc_mask\.weight \(shape \(4, 4\), the model's is \(8, 8\)\)"):
        plan_transfer(narrow, TARGET).require(ESSENTIAL, "a.pth", "hint")


def test_a_checkpoint_of_the_whole_model_differs_in_nothing():
    plan_transfer(SOURCE, SOURCE).require_all("a.pth")
    with pytest.raises(
        UserError, match=r"^a\.pth: not a checkpoint of this model; 4 tensors differ: \S+ \(class branch"
    ):
        plan_transfer(SOURCE, TARGET).require_all("a.pth")
    with pytest.raises(UserError, match=r"1 tensors differ: neck\.extra\.weight \(not in the checkpoint\)"):
        plan_transfer({}, state(neck__extra__weight=(1,))).require_all("a.pth")


def test_counters_of_steps_are_not_needed():
    target = state(backbone__bn1__num_batches_tracked=(), backbone__bn1__weight=(4,))
    plan_transfer(state(backbone__bn1__weight=(4,)), target).require(["backbone."], "a.pth", "hint")
    with pytest.raises(UserError, match=r"1 tensors .* backbone\.bn1\.weight"):
        plan_transfer({}, target).require(["backbone."], "a.pth", "hint")


def test_reports_as_table_and_json(tmp_path):
    transfer = plan_transfer(SOURCE, TARGET)
    rows = {line.split()[0]: line.split()[1:] for line in transfer.table().splitlines()}
    assert rows["roi_head.mask_head"] == ["1", "1", "1"]
    assert rows["neck"] == ["-", "-", "1"]
    assert "left in rpn_head.conv_seg: class branch: shape (1, 8), the model's is (3, 8) (1)" in transfer.table()
    transfer.write(tmp_path / "transfer.json", "a.pth")
    assert (tmp_path / "transfer.txt").read_text() == f"Initial weights: a.pth\n{transfer.table()}\n"
    written = json.loads((tmp_path / "transfer.json").read_text())
    assert set(written["taken"]) == set(transfer.taken)
    assert written["left"] == transfer.left
    assert set(written["missing"]) == set(transfer.missing)


def test_names_a_bare_backbone_as_the_detector_does():
    bare = state(conv1__weight=(4, 3), layer1__0__conv1__weight=(4, 4))
    direct = state(backbone__conv1__weight=(4, 3), backbone__layer1__0__conv1__weight=(4, 4))
    wrapped = {name.replace("backbone.", "backbone.model."): value for name, value in direct.items()}
    assert set(name_backbone(bare, direct)) == set(direct)
    assert set(name_backbone(bare, wrapped)) == set(wrapped)
    assert set(name_backbone(bare, {})) == set(direct)
