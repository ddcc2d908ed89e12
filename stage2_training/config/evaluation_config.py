"""What a run's config says about its detector: how to evaluate it, how it sees images, and which classes it has."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from statistics import median
from typing import Any

from mmengine.config import Config

from stage1_proposals.common.coco import read_coco, read_images
from stage1_proposals.common.errors import UserError
from stage2_training.config.annotation_files import annotation_file
from stage2_training.config.compose import read_fragment
from stage2_training.config.image_sizes import evaluate_in_tiles, resize_images
from stage2_training.config.overrides import Overrides, apply_overrides
from stage2_training.config.run_settings import tile_side
from stage2_training.data.dataset import CLUSTER_NAME


def evaluation_config(
    run: Config,
    dataset: Mapping[str, Any] | None = None,
    overrides: Overrides | None = None,
    class_agnostic: bool = False,
) -> Config:
    """The config of a run with what evaluation needs.

    Images are resized as the run resizes its test images or, in pre-training, its training images, and cut into tiles
    as the run cuts them, unless `overrides` has another size or other tiles. A Saliency Prompt variant stays one:
    prompts only act in its losses, and it predicts what the plain detector predicts.

    Args:
        run: the config of a pre-training or fine-tuning run.
        dataset: fragment of a dataset whose test images are used; None: the run's own.
        overrides: of the command line.
        class_agnostic: evaluate objects and detections of all classes as one class; else by the run's own metric.

    Raises:
        UserError: no dataset is given for a pre-training run; no such schedule; or as `apply_overrides`.
    """
    config = deepcopy(run)
    if dataset is not None:
        config.test_dataloader = _test_loader(dataset, _resize_transform(run))
        config.test_evaluator = {"type": "MaskAP"}
        config.test_cfg = {"type": "TestLoop"}
    elif "test_dataloader" not in config:
        raise UserError(
            f"{run.work_dir} is a pre-training run, which has no labels to evaluate on; fine-tune first, or name a "
            f"dataset with --dataset and --class-agnostic"
        )
    if class_agnostic:
        config.test_evaluator = {"type": "MaskAP", "class_agnostic": True}
    overrides = overrides or Overrides()
    if overrides.image_size is not None:
        resize_images(config.test_dataloader.dataset, overrides.image_size)
    tile = tile_side(overrides.tiles)
    evaluate_in_tiles(config, config.get("tiles", 0) if tile is None else tile)
    return apply_overrides(config, overrides.model_copy(update={"image_size": None, "tiles": None}))


def image_pipeline(run: Config) -> list[dict[str, Any]]:
    """The transforms of the images that a run's model predicts; each image is resized as for `evaluation_config`.

    Args:
        run: the config of a pre-training or fine-tuning run.
    """
    if "test_dataloader" in run:
        loader = run.test_dataloader
    else:
        loader = _test_loader({"val_dataloader": {}}, _resize_transform(run))
    return [dict(transform) for transform in loader.dataset.pipeline]


def class_names(run: Config) -> tuple[str, ...]:
    """The names of a run's classes; pre-training has but `object`, unless its clusters are classes."""
    if "test_dataloader" in run:
        return tuple(run.test_dataloader.dataset.metainfo.classes)
    clusters = _find(run.model, "num_classes")
    return ("object",) if clusters == 1 else tuple(f"{CLUSTER_NAME} {number}" for number in range(clusters))


def category_ids(run: Config, names: Sequence[str], labels: Path | None = None) -> list[int]:
    """The ids that a run's classes have in COCO JSON: in the given file, else in the run's labels; else from 1.

    Args:
        names: of the classes.
        labels: a JSON that lists images; it need not have categories.
    """
    files = [labels] if labels else []
    if "test_dataloader" in run:
        files.append(annotation_file(run.test_dataloader.dataset))
    for path in files:
        with suppress(UserError):
            ids = {name: number for number, name in read_coco(path, ignore_unknown_images=True).categories.items()}
            if ids.keys() >= set(names):
                return [ids[name] for name in names]
    return list(range(1, len(names) + 1))


def image_side(run: Config) -> int:
    """How long the longer side of what a run sees is, in pixels: that of its tiles, else the median of its test images.

    Twice the size to which they are resized, where the labels are gone or do not say it, and for pre-training.
    """
    if run.get("tiles"):
        return int(run.tiles)
    resize = _resize_transform(run)
    side = 2 * max(resize["scale"]) if resize else 1333
    if "test_dataloader" in run:
        with suppress(UserError):
            sizes = [image.size for image in read_images(annotation_file(run.test_dataloader.dataset)) if image.size]
            side = round(median(map(max, sizes))) if sizes else side
    return side


def _find(node: Any, key: str) -> Any:
    """The first value of this key in a config, at any depth; None: there is none."""
    if isinstance(node, Mapping):
        return node[key] if key in node else _find(list(node.values()), key)
    if isinstance(node, list | tuple):
        return next((found for value in node if (found := _find(value, key)) is not None), None)
    return None


def _test_loader(dataset: Mapping[str, Any], resize: dict[str, Any] | None) -> Config:
    """The data loader of a dataset's test images: its fine-tuning schedule's, with `resize` for the images' size."""
    schedule = read_fragment("schedules", dataset.get("default_schedule", "finetune"))
    config = Config({"val_dataloader": schedule["val_dataloader"]})
    config.merge_from_dict({"val_dataloader": dataset["val_dataloader"]})
    loader = config.val_dataloader
    if resize is not None:
        loader.dataset.pipeline = [
            resize if transform["type"] == "Resize" else transform for transform in loader.dataset.pipeline
        ]
    return loader


def _resize_transform(run: Config) -> dict[str, Any] | None:
    """The transform that gives a run's images a fixed size; None where there is none."""
    part = "test_dataloader" if "test_dataloader" in run else "train_dataloader"
    return next((transform for transform in run[part].dataset.pipeline if transform["type"] == "Resize"), None)
