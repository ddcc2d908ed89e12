import math

import pytest
import torch

from stage1_proposals.common.errors import UserError
from stage2_training.knet.heads import KernelHead, KernelIterHead, KernelUpdateStage, SemanticFPN, group_features


def test_kernels_are_the_learned_ones_plus_what_their_masks_cover() -> None:
    torch.manual_seed(0)
    head = KernelHead(num_kernels=5, num_classes=3, channels=32)
    feats = [torch.randn(2, 32, 64 // s, 96 // s) for s in (4, 8, 16, 32)]
    output = head(feats)
    assert output.features.shape == (2, 32, 8, 12)
    assert output.mask_logits.shape == (2, 5, 8, 12)
    assert output.seg_logits.shape == (2, 3, 8, 12)
    assert head.initial_kernels.shape == (5, 32)
    for image in range(2):
        for n in range(5):
            inside = output.mask_logits[image, n].sigmoid() > 0.5
            expected = head.init_kernels.weight[n, :, 0, 0] + output.features[image][:, inside].sum(1)
            torch.testing.assert_close(output.kernels[image, n], expected, rtol=1e-4, atol=1e-4)


def test_masks_are_the_localization_features_under_the_learned_kernels() -> None:
    torch.manual_seed(0)
    head = KernelHead(num_kernels=5, num_classes=3, channels=32)
    feats = [torch.randn(1, 32, 64 // s, 64 // s) for s in (4, 8, 16, 32)]
    localization = head.loc_convs[0](head.localization_fpn(feats)[0])
    expected = torch.einsum("nc,bchw->bnhw", head.initial_kernels, localization)
    torch.testing.assert_close(head(feats).mask_logits, expected, rtol=1e-4, atol=1e-4)


def test_other_kernels_can_stand_in_for_the_learned_ones() -> None:
    torch.manual_seed(0)
    head = KernelHead(num_kernels=5, num_classes=3, channels=32)
    feats = [torch.randn(2, 32, 64 // s, 64 // s) for s in (4, 8, 16, 32)]
    plain, same = head(feats), head(feats, lambda localization: head.initial_kernels.expand(len(localization), -1, -1))
    for value, expected in zip(same, plain, strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-4)
    flipped = torch.stack([head.initial_kernels, head.initial_kernels.flip(0)])
    other = head(feats, lambda _: flipped)
    torch.testing.assert_close(other.mask_logits[1], plain.mask_logits[1].flip(0), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(other.kernels[1], plain.kernels[1].flip(0), rtol=1e-4, atol=1e-4)


def test_initialisation_of_the_kernel_head() -> None:
    torch.manual_seed(0)
    head = KernelHead(num_kernels=64, num_classes=3, channels=64)
    head.init_weights()
    assert abs(head.initial_kernels.std().item() - 1) < 0.05
    assert abs(head.loc_convs[0].conv.weight.std().item() - 0.01) < 1e-3
    assert abs(head.seg_convs[0].conv.weight.std().item() - 0.01) < 1e-3
    torch.testing.assert_close(head.conv_seg.bias.sigmoid(), torch.full((3,), 0.01))
    fpn = [m.weight.flatten() for m in head.localization_fpn.modules() if isinstance(m, torch.nn.Conv2d)]
    assert abs(torch.cat(fpn).std().item() - 0.01) < 1e-4
    assert math.isclose(head.localization_fpn.conv_pred.gn.weight.mean().item(), 1)


def test_sums_the_features_inside_each_mask() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 4, 3, 5, generator=generator)
    logits = torch.randn(2, 3, 3, 5, generator=generator)
    expected = torch.zeros(2, 3, 4)
    for image in range(2):
        for kernel in range(3):
            for y in range(3):
                for x in range(5):
                    if torch.sigmoid(logits[image, kernel, y, x]) > 0.5:
                        expected[image, kernel] += features[image, :, y, x]
    torch.testing.assert_close(group_features(features, logits), expected)


def test_sums_in_float32_under_autocast() -> None:
    features = torch.ones(1, 1, 64, 64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        total = group_features(features.bfloat16(), torch.ones(1, 1, 64, 64))
    assert total.dtype == torch.float32
    assert total.item() == 64 * 64


def test_no_gradient_flows_into_the_masks() -> None:
    features, logits = torch.ones(1, 2, 4, 4, requires_grad=True), torch.ones(1, 3, 4, 4, requires_grad=True)
    group_features(features, logits).sum().backward()
    assert logits.grad is None
    assert (features.grad == 3).all()


def fpn_levels(height: int, width: int, channels: int = 32) -> list[torch.Tensor]:
    return [torch.randn(2, channels, height // s, width // s) for s in (4, 8, 16, 32)]


@pytest.mark.parametrize("stride", [4, 8])
def test_every_level_reaches_both_outputs_at_their_stride(stride: int) -> None:
    torch.manual_seed(0)
    fpn, feats = SemanticFPN(32, stride), fpn_levels(64, 96)
    outputs = fpn(feats)
    assert [output.shape for output in outputs] == [(2, 32, 64 // stride, 96 // stride)] * 2
    fpn.load_state_dict(SemanticFPN(32).state_dict())  # the same parameters at any stride
    for level in range(4):
        changed = fpn([feat + torch.randn_like(feat) * (i == level) for i, feat in enumerate(feats)])
        for before, after in zip(outputs, changed, strict=True):
            assert (before - after).abs().max() > 1e-3


def test_masks_have_one_of_two_strides() -> None:
    with pytest.raises(UserError, match="mask_stride 16: use 4 or 8"):
        KernelHead(num_kernels=5, num_classes=3, channels=32, mask_stride=16)


def test_the_position_enters_at_the_coarsest_level_only() -> None:
    fpn = SemanticFPN(32)
    inputs = []
    for convs in fpn.convs_all_levels:
        convs.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    feats = fpn_levels(64, 96)
    fpn(feats)
    for feat, entered in zip(feats[:3], inputs[:3], strict=True):
        assert torch.equal(feat, entered)
    encoding = inputs[3] - feats[3]
    assert encoding.abs().max() <= 1 + 1e-5
    # The first half of the channels tells the rows apart, the second half the columns.
    assert (encoding[:, :16].std(dim=2) > 1e-4).any()
    assert (encoding[:, :16].std(dim=3) < 1e-5).all()
    assert (encoding[:, 16:].std(dim=2) < 1e-5).all()
    assert (encoding[:, 16:].std(dim=3) > 1e-4).any()


def test_initialisation_of_the_semantic_fpn() -> None:
    torch.manual_seed(0)
    fpn = SemanticFPN(64)
    fpn.init_weights()
    weights = torch.cat([m.weight.flatten() for m in fpn.modules() if isinstance(m, torch.nn.Conv2d)])
    assert abs(weights.std().item() - 0.01) < 1e-4


def stage_inputs(images: int = 2, kernels: int = 6) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return (
        torch.randn(images, 32, 4, 5, generator=generator),
        torch.randn(images, kernels, 32, generator=generator),
        torch.randn(images, kernels, 4, 5, generator=generator),
    )


def test_update_stage_shapes_and_mask_kernels() -> None:
    torch.manual_seed(0)
    stage = KernelUpdateStage(num_classes=3, channels=32, num_heads=4, ffn_channels=16)
    features, kernels, masks = stage_inputs()
    output = stage(features, kernels, masks)
    assert output.cls_logits.shape == (2, 6, 3)
    assert output.mask_logits.shape == (2, 6, 4, 5)
    assert output.kernels.shape == (2, 6, 32)
    transformed = stage.feat_transform(features)
    mask_kernels = stage.fc_mask(stage.mask_fcs(output.kernels))
    for image in range(2):
        for n in range(6):
            expected = (transformed[image] * mask_kernels[image, n, :, None, None]).sum(0)
            torch.testing.assert_close(output.mask_logits[image, n], expected, rtol=1e-4, atol=1e-5)


def test_the_order_of_kernels_and_the_other_images_do_not_matter() -> None:
    torch.manual_seed(0)
    stage = KernelUpdateStage(num_classes=3, channels=32, num_heads=4, ffn_channels=16)
    features, kernels, masks = stage_inputs()
    together = stage(features, kernels, masks)
    order = torch.tensor([3, 1, 5, 0, 4, 2])
    alone = stage(features[1:], kernels[1:, order], masks[1:, order])
    for both, one in zip(together, alone, strict=True):
        torch.testing.assert_close(both[1:, order], one, rtol=1e-4, atol=1e-5)


def test_a_kernel_attends_to_the_others() -> None:
    torch.manual_seed(0)
    stage = KernelUpdateStage(num_classes=3, channels=32, num_heads=4, ffn_channels=16)
    features, kernels, masks = stage_inputs()
    before = stage(features, kernels, masks).kernels[:, 0]
    kernels[:, 1] += 1
    assert not torch.allclose(before, stage(features, kernels, masks).kernels[:, 0])


def test_initialisation_of_an_update_stage() -> None:
    torch.manual_seed(0)
    stage = KernelUpdateStage(num_classes=3, channels=32, ffn_channels=64)
    stage.init_weights()
    torch.testing.assert_close(stage.fc_cls.bias.sigmoid(), torch.full((3,), 0.01))
    for name, weight in stage.named_parameters():
        if weight.dim() > 1:
            bound = (6 / (weight.shape[0] + weight.shape[1])) ** 0.5
            assert 0.9 * bound < weight.abs().max() <= bound, name


def test_each_stage_continues_from_the_previous_one() -> None:
    torch.manual_seed(0)
    head = KernelIterHead(num_classes=3, num_stages=3, channels=32, num_heads=4, ffn_channels=16)
    features, kernels, masks = torch.randn(2, 32, 4, 5), torch.randn(2, 6, 32), torch.randn(2, 6, 4, 5)
    stages = head(features, kernels, masks)
    assert len(stages) == 3
    for update, stage in zip(head.mask_head, stages, strict=True):
        expected = update(features, kernels, masks)
        for actual, by_hand in zip(stage, expected, strict=True):
            assert torch.equal(actual, by_hand)
        kernels, masks = stage.kernels, stage.mask_logits


def test_initialisation_reaches_all_stages() -> None:
    head = KernelIterHead(num_classes=3, channels=32, ffn_channels=16)
    head.init_weights()
    for stage in head.mask_head:
        torch.testing.assert_close(stage.fc_cls.bias.sigmoid(), torch.full((3,), 0.01))
