import torch

from stage2_training.knet.heads import group_features


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
