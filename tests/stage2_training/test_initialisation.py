from pathlib import Path

import pytest
import torch
from mmdet.registry import MODELS

import stage2_training.timm_backbone  # noqa: F401 (registers TimmBackbone)
from stage1_proposals.backbones import new_network, read_backbone_weights
from stage1_proposals.errors import UserError
from stage1_proposals.weights import file_sha256, locate_weights
from stage2_training import initialisation
from stage2_training.transfer import plan_transfer
from stage2_training.work_dir import WorkDir

LITE0 = {"type": "TimmBackbone", "model_name": "tf_efficientnet_lite0"}
RESNET = {"type": "ResNet", "depth": 50}


def detector(backbone: dict) -> dict[str, torch.Tensor]:
    """The state dict of a detector with this backbone and one more tensor, without memory for its values."""
    with torch.device("meta"):
        weights = MODELS.build(backbone).state_dict()
    return {f"backbone.{name}": value for name, value in weights.items()} | {"neck.weight": torch.ones(1)}


@pytest.fixture
def resnet_file(tmp_path) -> str:
    torch.manual_seed(0)
    torch.save(new_network("resnet50").state_dict(), tmp_path / "r50.pth")
    return str(tmp_path / "r50.pth")


def test_stage_1s_backbone_fills_a_detector_of_its_architecture(write_shards):
    used = {"name": "lite0_imagenet", "weights": None, "sha256": file_sha256(locate_weights("lite0_imagenet"))}
    start = initialisation.stage1_backbone(write_shards([[]], used))
    target = detector(LITE0)
    transfer = plan_transfer(start.read(target), target)
    transfer.require(start.needed, start.source, start.hint)
    assert transfer.missing == ("neck.weight",)
    bundled = read_backbone_weights("lite0_imagenet")
    assert torch.equal(transfer.taken["backbone.model.conv_stem.weight"], bundled["conv_stem.weight"])

    other = detector(RESNET)
    with pytest.raises(UserError, match=r"lite0_imagenet \(.*another than stage 1's.*--backbone NAME"):
        plan_transfer(start.read(other), other).require(start.needed, start.source, start.hint)


def test_stage_1s_file_must_still_be_the_one_it_used(write_shards, resnet_file):
    used = {"name": "densecl_r50", "weights": resnet_file, "sha256": "0" * 64}
    shards = write_shards([[]], used)
    with pytest.raises(UserError, match=r"is not the file that stage 1 used.*--backbone-weights FILE"):
        initialisation.stage1_backbone(shards)
    Path(resnet_file).unlink()
    with pytest.raises(UserError, match="no such file; pass --backbone densecl_r50 --backbone-weights FILE"):
        initialisation.stage1_backbone(shards)


def test_supervised_weights_follow_the_models_backbone(resnet_file):
    lite0, resnet = detector(LITE0), detector(RESNET)
    bundled = initialisation.supervised_backbone()
    assert not [name for name in plan_transfer(bundled.read(lite0), lite0).missing if name.startswith("backbone")]
    given = initialisation.supervised_backbone(resnet_file)
    assert not [name for name in plan_transfer(given.read(resnet), resnet).missing if name.startswith("backbone")]
    assert given.record == {"kind": "imagenet", "sha256": file_sha256(resnet_file)}
    with pytest.raises(UserError, match="no ImageNet weights for this model's backbone"):
        bundled.read({"backbone.unknown": torch.ones(1)})
    with pytest.raises(UserError, match="no such file"):
        initialisation.supervised_backbone(resnet_file + "x")


def test_a_file_may_be_a_detector_or_a_bare_backbone(tmp_path, resnet_file):
    resnet = detector(RESNET)
    bare = initialisation.checkpoint_file(resnet_file)
    assert plan_transfer(bare.read(resnet), resnet).missing == ("neck.weight",)
    torch.save({"state_dict": {"neck.weight": torch.zeros(1)}}, tmp_path / "detector.pth")
    whole = initialisation.checkpoint_file(str(tmp_path / "detector.pth"))
    transfer = plan_transfer(whole.read(resnet), resnet)
    assert set(transfer.taken) == {"neck.weight"}
    with pytest.raises(UserError, match=r"backbone\.conv1\.weight"):
        transfer.require(whole.needed, whole.source, whole.hint)


def test_pretraining_is_the_default_once_it_is_finished(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    work = WorkDir(initialisation.pretraining_dir("configs/models/knet.py"))
    assert work.path == Path("work_dirs/pretrain/knet")
    with pytest.raises(
        UserError, match=r"pre-training of knet was not run in work_dirs/pretrain/knet.*--checkpoint FILE"
    ):
        initialisation.pretrained("knet", "KNet")
    work.path.mkdir(parents=True)
    torch.save({"state_dict": {"a": torch.ones(1)}}, work.path / "iter_5.pth")
    (work.path / "last_checkpoint").write_text(str(work.path / "iter_5.pth"))
    with pytest.raises(UserError, match="is not finished"):
        initialisation.pretrained("knet", "KNet")
    work.finish({})
    start = initialisation.pretrained("knet", "KNet")
    assert start.source == "work_dirs/pretrain/knet/iter_5.pth"
    assert {"backbone.", "rpn_head.init_kernels", "roi_head.mask_head"} <= set(start.needed)
    with pytest.raises(UserError, match="no such checkpoint"):
        initialisation.pretrained("knet", "KNet", "elsewhere.pth")


def test_scratch_takes_nothing():
    start = initialisation.scratch()
    assert start.read(detector(RESNET)) == {}
    assert start.needed == ()
