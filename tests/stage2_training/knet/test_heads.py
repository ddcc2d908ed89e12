import math

import torch

from stage2_training.knet.heads import KernelHead


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
    plain, same = head(feats), head(feats, head.initial_kernels.expand(2, -1, -1))
    for value, expected in zip(same, plain, strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-4)
    other = head(feats, torch.stack([head.initial_kernels, head.initial_kernels.flip(0)]))
    torch.testing.assert_close(other.mask_logits[1], plain.mask_logits[1].flip(0), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(other.kernels[1], plain.kernels[1].flip(0), rtol=1e-4, atol=1e-4)


def test_initialisation() -> None:
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
