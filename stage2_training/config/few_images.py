"""The images that fine-tuning trains on; and length, evaluations and augmentation that follow from their number.

Length and augmentation follow for datasets that do not state their own length: labels of a user. Warm-up takes a tenth
of the steps at most (`ShortWarmUpLR`), and so follows from them, too.
"""

from math import ceil

from mmengine.config import Config
from mmengine.dist import get_world_size

from stage1_proposals.common.errors import UserError
from stage2_training.config.annotation_files import annotation_file
from stage2_training.config.objects import images_with_objects
from stage2_training.config.run_settings import EPOCHS
from stage2_training.labels.coco_subset import rank_by_seed

STEPS = 400  # at least: 60 images at the CPU schedule's total batch take about as many in 48 epochs
FEW = 100  # images, up to which augmentation is stronger
SHRINKING = (0.6, 1.0)


def fit_to_images(config: Config, images: int, epochs: int | None = None) -> None:
    """Set the number of epochs, the interval of evaluation and the augmentation, in place.

    A run has at least `STEPS` steps. It is evaluated as often as the schedule would evaluate it in `EPOCHS` epochs.
    Up to `FEW` images are also shrunk at random, and their colours changed.

    Args:
        config: of fine-tuning, with its total batch.
        images: that it trains on.
        epochs: given by the user, and kept.
    """
    config.train_cfg.max_epochs = epochs or max(EPOCHS, ceil(STEPS / epoch_steps(config, images)))
    share = config.train_cfg.max_epochs / EPOCHS
    config.train_cfg.val_interval = max(1, round(config.train_cfg.get("val_interval", 1) * share))
    if images <= FEW:
        _augment(config)


def draw_images(config: Config, count: int, keep_length: bool = False) -> None:
    """Train on some of the images that have objects, in place.

    The run's seed ranks all of them by their names, and the first are taken: those of a lower count are among them.

    Args:
        config: of fine-tuning, with its total batch.
        count: of images.
        keep_length: leave the number of epochs and the interval of evaluation as they are; else the run has as many
            steps and evaluations as it has on all images.

    Raises:
        UserError: fewer images have objects, or the labels cannot be read.
    """
    dataset = config.train_dataloader.dataset
    images = images_with_objects(dataset)
    if count > len(images):
        raise UserError(f"--train-images {count}: {annotation_file(dataset)} has {len(images)} images with objects")
    drawn = rank_by_seed(images, config.randomness.seed, key=images.__getitem__)[:count]
    dataset.indices = sorted(drawn)
    dataset.filter_cfg = None  # `indices` are places in what it leaves
    if not keep_length:
        share = epoch_steps(config, len(images)) / epoch_steps(config, count)
        config.train_cfg.max_epochs = ceil(config.train_cfg.max_epochs * share)
        config.train_cfg.val_interval = max(1, round(config.train_cfg.get("val_interval", 1) * share))


def epoch_steps(config: Config, images: int) -> int:
    """Steps of an epoch."""
    loader = config.train_dataloader
    total = config.train_cfg.get("total_batch") or loader.batch_size * get_world_size()
    return max(1, ceil(images * loader.get("sampler", {}).get("repeats", 1) / total))


def describe_length(config: Config) -> str | None:
    """One line on how long a run trains and how often it is evaluated; None where its images were not counted."""
    images = config.get("training_images")
    if not images:
        return None
    epochs, steps = config.train_cfg.max_epochs, epoch_steps(config, images)
    schedules = config.get("param_scheduler") or ()
    first = schedules[0] if schedules and isinstance(schedules, list | tuple) else {}
    warm_up = min(first["steps"], max(2, epochs * steps // 10)) if "steps" in first else first.get("end")
    interval = config.train_cfg.get("val_interval", 1)
    pipeline = config.train_dataloader.dataset.get("pipeline", ())
    changed = [transform.type for transform in pipeline if transform.type in AUGMENTATIONS]
    return (
        f"{images:,} training images: {epochs} epochs of {steps} steps, {warm_up or 'none'} of them for warm-up; "
        f"evaluated every {f'{interval} epochs' if interval > 1 else 'epoch'}; augmented by "
        f"{', '.join(AUGMENTATIONS[name] for name in changed) or 'nothing'}; --epochs, --patience and --cfg-options "
        f"(train_cfg.val_interval, train_dataloader.dataset.pipeline) set others"
    )


# Of MMDetection's transforms, with what they do.
AUGMENTATIONS = {
    "RandomResize": "size",
    "RandomFlip": "flip",
    "Rotate": "rotation",
    "PhotoMetricDistortion": "colour",
}


def _augment(config: Config) -> None:
    """Resize to a random share of the size, and change the colours; a pipeline that already does is left as it is."""
    dataset = config.train_dataloader.dataset
    pipeline = [dict(transform) for transform in dataset.get("pipeline", ())]
    known = {transform["type"] for transform in pipeline}
    for place, transform in enumerate(pipeline):
        if transform["type"] == "Resize" and "scale" in transform:
            pipeline[place] = {**transform, "type": "RandomResize", "ratio_range": SHRINKING}
    if "PhotoMetricDistortion" not in known and "PackDetInputs" in known:
        place = next(
            number for number, each in enumerate(pipeline) if each["type"] in ("BoxesFromMasks", "PackDetInputs")
        )
        pipeline.insert(place, {"type": "PhotoMetricDistortion"})
    dataset.pipeline = pipeline
