import torch

from stage2_training.knet.heads import KernelIterHead


def test_each_stage_goes_on_from_the_one_before() -> None:
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


def test_initialisation_reaches_the_stages() -> None:
    head = KernelIterHead(num_classes=3, channels=32, ffn_channels=16)
    head.init_weights()
    for stage in head.mask_head:
        torch.testing.assert_close(stage.fc_cls.bias.sigmoid(), torch.full((3,), 0.01))
