# Settings that every run shares, whatever its model, dataset and schedule.
default_scope = "mmdet"
custom_imports = dict(
    imports=[
        "stage2_training.data",
        "stage2_training.engine.best_checkpoint",
        "stage2_training.engine.checkpoints",
        "stage2_training.engine.logging",
        "stage2_training.engine.loop",
        "stage2_training.engine.optimizer",
        "stage2_training.engine.schedulers",
        "stage2_training.engine.steps",
        "stage2_training.evaluation.coco_metric",
        "stage2_training.knet",
        "stage2_training.models.mmdet_fixes",
        "stage2_training.saliency_prompt.detectors",
        "stage2_training.models.timm_backbone",
        "stage2_training.models.unique_objects",
    ],
    allow_failed_imports=False,
)
default_hooks = dict(
    timer=dict(type="IterTimerHook"),
    param_scheduler=dict(type="ParamSchedulerHook"),
    logger=dict(type="ProgressLoggerHook", interval=20),
    checkpoint=dict(type="AtomicCheckpointHook", interval=100, max_keep_ckpts=2),
    best=dict(type="BestCheckpointHook"),
    sampler_seed=dict(type="DistSamplerSeedHook"),
    runtime_info=dict(type="RuntimeInfoHook"),
)
custom_hooks = [dict(type="PlainCheckpointHook")]
log_processor = dict(type="LogProcessor", window_size=20, by_epoch=True)
visualizer = dict(
    type="DetLocalVisualizer", vis_backends=[dict(type="LocalVisBackend"), dict(type="TensorboardVisBackend")]
)
env_cfg = dict(
    cudnn_benchmark=False,
    mp_cfg=dict(mp_start_method="fork", opencv_num_threads=0),
    dist_cfg=dict(backend="nccl"),
)
randomness = dict(seed=0)
log_level = "INFO"
load_from = None
resume = False
