import pytest
import torch

from stage2_training.models.timm_backbone import TimmBackbone


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "resnet10t", "convnext_atto"])
def test_features_at_strides_4_to_32(name: str) -> None:
    backbone = TimmBackbone(name).eval()
    with torch.no_grad():
        features = backbone(torch.randn(2, 3, 64, 96))
    assert [tuple(feature.shape) for feature in features] == [
        (2, channels, 64 // stride, 96 // stride)
        for channels, stride in zip(backbone.channels, (4, 8, 16, 32), strict=True)
    ]


def test_lite0_channels() -> None:
    assert TimmBackbone("tf_efficientnet_lite0").channels == (24, 40, 112, 320)


@pytest.mark.parametrize(
    ("name", "stages", "frozen"),
    [
        ("tf_efficientnet_lite0", -1, set()),
        ("tf_efficientnet_lite0", 0, {"conv_stem", "bn1", "blocks.0"}),
        ("tf_efficientnet_lite0", 1, {"conv_stem", "bn1", "blocks.0", "blocks.1"}),
        ("tf_efficientnet_lite0", 3, {"conv_stem", "bn1", *(f"blocks.{i}" for i in range(5))}),
        ("tf_efficientnet_lite0", 4, {"conv_stem", "bn1", "blocks"}),
        ("resnet10t", 1, {"conv1", "bn1", "layer1"}),
        ("convnext_atto", 2, {"stem_0", "stem_1", "stages_0", "stages_1"}),
        ("convnext_atto", 0, set()),
    ],
)
def test_frozen_stages(name: str, stages: int, frozen: set[str]) -> None:
    backbone = TimmBackbone(name, frozen_stages=stages).train()
    for parameter_name, parameter in backbone.model.named_parameters():
        expected = any(parameter_name.startswith(f"{module}.") for module in frozen)
        assert parameter.requires_grad != expected, parameter_name
    for path, module in backbone.model.named_modules():
        if next(module.parameters(recurse=False), None) is not None:
            expected = any(f"{path}.".startswith(f"{each}.") for each in frozen)
            assert module.training != expected, path


def test_frozen_layers_do_not_move() -> None:
    torch.manual_seed(0)
    backbone = TimmBackbone("tf_efficientnet_lite0", frozen_stages=1).train()
    before = {name: tensor.clone() for name, tensor in backbone.model.state_dict().items()}
    sum(feature.sum() for feature in backbone(torch.randn(2, 3, 64, 64))).backward()
    torch.optim.SGD([p for p in backbone.parameters() if p.requires_grad], lr=0.1).step()
    moved = {name for name, tensor in backbone.model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved
    assert not any(name.startswith(("conv_stem", "bn1", "blocks.0.", "blocks.1.")) for name in moved)


def test_norm_eval_keeps_the_statistics() -> None:
    for norm_eval in (True, False):
        backbone = TimmBackbone("resnet10t", norm_eval=norm_eval).train()
        mean = backbone.model.bn1.running_mean.clone()
        backbone(torch.randn(2, 3, 64, 64))
        assert torch.equal(mean, backbone.model.bn1.running_mean) == norm_eval
        assert backbone.model.layer1.training


def test_a_network_without_the_strides_is_refused() -> None:
    with pytest.raises(ValueError, match="stride"):
        TimmBackbone("vit_tiny_patch16_224")
