"""K-Net, ResNet-50 (PyTorch style), FPN, 100 kernels: the paper's model."""

_base_ = "parts/resnet50.py"

model = dict(
    type="KNet",
    neck=dict(type="FPN", in_channels=[256, 512, 1024, 2048], out_channels=256, num_outs=4),
    rpn_head=dict(type="KernelHead", num_kernels=100, num_classes=80, channels=256),
    roi_head=dict(
        type="KernelIterHead", num_classes=80, num_stages=3, channels=256, num_heads=8, ffn_channels=2048, dropout=0.0
    ),
    # Matching costs and losses keep the defaults of `CostWeights` and `LossWeights`.
    test_cfg=dict(rescore=True),  # not K-Net's: after few steps, kernels find the same object several times
)
