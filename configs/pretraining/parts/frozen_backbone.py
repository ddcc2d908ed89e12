"""What pre-training without prompts changes in a model: the backbone is frozen whole, as with prompts."""

model = dict(backbone=dict(frozen_stages=4))
