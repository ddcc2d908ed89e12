"""SGD, unclipped gradients, one learning rate for all parts: how the paper trains the CNN baselines."""

optim_wrapper = dict(
    optimizer=dict(_delete_=True, type="SGD", lr=0.02, momentum=0.9, weight_decay=1e-4),
    paramwise_cfg=None,
    clip_grad=None,
)
