"""SGD and unclipped gradients, the backbone like the rest: how the paper trains CNNs."""

optim_wrapper = dict(
    optimizer=dict(_delete_=True, type="SGD", lr=0.02, momentum=0.9, weight_decay=1e-4),
    paramwise_cfg=None,
    clip_grad=None,
)
