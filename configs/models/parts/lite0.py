"""EfficientNet-Lite0, whose ImageNet weights are bundled: the backbone of the models for two CPU cores.

A model takes these parts by `_base_.lite0`, because MMEngine lets only one of several bases say `model`.
"""

lite0 = dict(
    data_preprocessor=dict(mean=[127.5] * 3, std=[127.5] * 3),  # as the bundled weights were trained
    backbone=dict(type="TimmBackbone", model_name="tf_efficientnet_lite0", frozen_stages=1, norm_eval=True),
    channels=[24, 40, 112, 320],
)
