import torch

from stage2_training.knet.heads import KernelUpdateStage


def inputs(images: int = 2, kernels: int = 6) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return (
        torch.randn(images, 32, 4, 5, generator=generator),
        torch.randn(images, kernels, 32, generator=generator),
        torch.randn(images, kernels, 4, 5, generator=generator),
    )


def test_shapes_and_mask_kernels() -> None:
    torch.manual_seed(0)
    stage = KernelUpdateStage(num_classes=3, channels=32, num_heads=4, ffn_channels=16)
    features, kernels, masks = inputs()
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
    features, kernels, masks = inputs()
    together = stage(features, kernels, masks)
    order = torch.tensor([3, 1, 5, 0, 4, 2])
    alone = stage(features[1:], kernels[1:, order], masks[1:, order])
    for both, one in zip(together, alone, strict=True):
        torch.testing.assert_close(both[1:, order], one, rtol=1e-4, atol=1e-5)


def test_a_kernel_attends_to_the_others() -> None:
    torch.manual_seed(0)
    stage = KernelUpdateStage(num_classes=3, channels=32, num_heads=4, ffn_channels=16)
    features, kernels, masks = inputs()
    before = stage(features, kernels, masks).kernels[:, 0]
    kernels[:, 1] += 1
    assert not torch.allclose(before, stage(features, kernels, masks).kernels[:, 0])


def test_initialisation() -> None:
    torch.manual_seed(0)
    stage = KernelUpdateStage(num_classes=3, channels=32, ffn_channels=64)
    stage.init_weights()
    torch.testing.assert_close(stage.fc_cls.bias.sigmoid(), torch.full((3,), 0.01))
    for name, weight in stage.named_parameters():
        if weight.dim() > 1:
            bound = (6 / (weight.shape[0] + weight.shape[1])) ** 0.5
            assert 0.9 * bound < weight.abs().max() <= bound, name
