import torch

from stage2_training.knet.heads import SemanticFPN


def levels(height: int, width: int, channels: int = 32) -> list[torch.Tensor]:
    return [torch.randn(2, channels, height // s, width // s) for s in (4, 8, 16, 32)]


def test_every_level_reaches_both_outputs_at_stride_8() -> None:
    torch.manual_seed(0)
    fpn, feats = SemanticFPN(32), levels(64, 96)
    outputs = fpn(feats)
    assert [output.shape for output in outputs] == [(2, 32, 8, 12)] * 2
    for level in range(4):
        changed = fpn([feat + torch.randn_like(feat) * (i == level) for i, feat in enumerate(feats)])
        for before, after in zip(outputs, changed, strict=True):
            assert (before - after).abs().max() > 1e-3


def test_the_position_enters_at_the_coarsest_level_only() -> None:
    fpn = SemanticFPN(32)
    inputs = []
    for convs in fpn.convs_all_levels:
        convs.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    feats = levels(64, 96)
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


def test_initialisation() -> None:
    torch.manual_seed(0)
    fpn = SemanticFPN(64)
    fpn.init_weights()
    weights = torch.cat([m.weight.flatten() for m in fpn.modules() if isinstance(m, torch.nn.Conv2d)])
    assert abs(weights.std().item() - 0.01) < 1e-4
