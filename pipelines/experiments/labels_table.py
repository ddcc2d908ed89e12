"""`table labels`: AP by the number of labelled images, for several initial weights: whether pre-training pays."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import click

from pipelines.demo_data.demo_set import Counts
from pipelines.experiments.conclusion import Scores, conclude
from pipelines.experiments.execute import execute, print_plan
from pipelines.experiments.paper import Row
from pipelines.experiments.plan import Plan, Run, in_order
from pipelines.experiments.record import ExperimentRecord, mean_and_spread, provenance
from pipelines.experiments.scales import DEMO, Given, Scale, demo_datasets, folder_name
from pipelines.options import (
    DEFAULT_DATASET,
    POSITIVE,
    SHARD_DIRECTORY,
    Command,
    dataset_option,
    experiment_options,
    settings_options,
    words_option,
)
from stage1_proposals.common.errors import UserError
from stage1_proposals.common.files import write_json, writing
from stage2_training import quiet_imports
from stage2_training.config.fragments import check_fragments
from stage2_training.config.run_settings import DEFAULT_MODEL, Overrides
from stage2_training.labels.custom import CustomDatasetOptions

SIZES = (10, 20, 40)
STARTS = {"sp": "Saliency Prompt", "pseudo": "pseudo labels", "imagenet": "ImageNet weights", "coco": "COCO weights"}
PRETRAINED = ("sp", "pseudo")
IMAGES = "labelled images"  # the axis of the picture


@dataclass(frozen=True)
class Labels:
    """The labelled images of a table: how many there are to train and test on, where a plan finds them."""

    train: int
    test: int
    key: str  # of the scale's datasets
    masks: str  # that pre-training learns from, as of `Row`


@click.command("labels", cls=Command)
@dataset_option()
@click.option("--shards", type=SHARD_DIRECTORY, help="To pre-train on. Default: shards; the demo's are made.")
@words_option("--model", default=(DEFAULT_MODEL,), metavar="NAME", help="One or several of configs/models.")
@click.option("--baseline", default="mask_rcnn_lite0", help="A model beside them, from ImageNet weights; or none.")
@words_option("--starts", type=click.Choice(list(STARTS)), default=("imagenet", "pseudo", "sp"), help="As of --init.")
@words_option("--sizes", type=POSITIVE, show_default="10 20 40", metavar="N", help="Labelled images, beside all.")
@click.option("--pretrain-schedule", help="Default: pre-training's own.")
@click.option("--finetune-schedule", help="Default: fine-tuning's own.")
@experiment_options
@settings_options("overrides", Overrides, only=["data_root", "image_size", "tiles"])
@settings_options("custom", CustomDatasetOptions)
def command(
    dataset: str,
    shards: Path | None,
    model: Sequence[str],
    baseline: str,
    starts: Sequence[str],
    sizes: Sequence[int],
    seeds: Sequence[int],
    jobs: int,
    dry_run: bool,
    work_dir: Path,
    count: tuple[int, int, int] | None,
    overrides: Overrides,
    custom: CustomDatasetOptions,
    device: str | None,
    gpus: int | None,
    batch_size: int | None,
    **settings: Any,
) -> None:
    """AP by the number of labelled images, of models from several initial weights; missing runs are made first."""
    models, baselines = list(dict.fromkeys(model)), [] if baseline == "none" else [baseline]
    for name in [*models, *baselines]:
        check_fragments(models=name)
    for name in ("pretrain_schedule", "finetune_schedule"):
        check_fragments(schedules=settings[name])
    if dataset == DEFAULT_DATASET:
        if shards or overrides.data_root or custom != CustomDatasetOptions():
            given = "--shards, --data-root, --test-labels, --classes, --held-out-seed and --skip-malformed"
            raise UserError(f"{given} go with a --dataset of your own: the demo's images and shards are made")
        scale, labels = _demo(count)
    else:
        if count:
            raise UserError(f"--count goes with the demo set, not {dataset}")
        needed = (shards or Path("shards")) if {*starts} & {*PRETRAINED} else None
        scale, labels = _own(dataset, needed, overrides.data_root, custom)
    _check_models([*models, *baselines], models if "sp" in starts else ())
    changes = {**settings, "image_size": overrides.image_size, "tiles": overrides.tiles}
    scale = replace(scale, **{name: value for name, value in changes.items() if value})
    plan = Plan(scale, work_dir / scale.name, device, gpus, batch_size)
    rows = {f"{name}, {STARTS[start]}": _row(name, start, labels) for name in models for start in dict.fromkeys(starts)}
    dashed = {f"{name}, {STARTS['imagenet']}": _row(name, "imagenet", labels) for name in baselines}
    parts = [*_parts(sizes, labels.train), None]
    seeds = list(dict.fromkeys(seeds))

    def run(row: Row, images: int | None, seed: int) -> Run:
        return plan.finetuning(replace(row, images=images, epochs=images and settings["finetune_epochs"]), seed)

    # What can fail at its start comes first.
    ordered = sorted({**dashed, **rows}.values(), key=lambda row: row.init == "imagenet")
    runs = in_order(run(row, images, seed) for seed in seeds for row in ordered for images in parts)
    if dry_run:
        print_plan(runs)
        return
    execute(runs, jobs)
    scores = {
        name: {images or labels.train: [_score(run(row, images, seed)) for seed in seeds] for images in parts}
        for name, row in {**rows, **dashed}.items()
    }
    heading = [str(images) if images else f"all {labels.train}" for images in parts]
    record = ExperimentRecord(
        title=f"AP by the number of labelled images, {scale.name}",
        number=None,
        scale=scale.name,
        notes=list(_notes(labels, seeds, settings["finetune_epochs"], scale)),
        heading=["model, initial weights", *heading],
        rows=[[name, *map(mean_and_spread, by_size.values())] for name, by_size in scores.items()],
        pictures=["labels.png"],
        conclusions=list(_conclusions(scores, models, starts, list(dashed))),
        **provenance(runs, device),
    )
    path = plan.root / "figures" / "labels.record.json"
    _draw(scores, dashed, path.with_name("labels.png"), seeds)
    record.publish(path)


def _demo(count: tuple[int, int, int] | None) -> tuple[Scale, Labels]:
    """The demo's scale, whose runs on all images are those of the paper's tables."""
    scale = replace(DEMO, suffix="", datasets=demo_datasets(*count) if count else DEMO.datasets)
    counts = scale.datasets["ctw1500"]
    assert isinstance(counts, Counts)
    return scale, Labels(counts.train, counts.test, "ctw1500", "saliency")


def _own(
    dataset: str, shards: Path | None, data_root: str | None, custom: CustomDatasetOptions
) -> tuple[Scale, Labels]:
    """The scale of a dataset of the user, with the defaults of `pretrain` and `finetune`.

    Raises:
        UserError: the labels or shards are not there, or cannot be used.
    """
    with quiet_imports():
        from mmengine.config import Config

        from stage1_proposals.shards import ShardSet
        from stage2_training.config.annotation_files import annotation_file, check_annotations, label_hashes
        from stage2_training.config.datasets import names_labels, open_dataset
        from stage2_training.config.objects import images_with_objects

    fragment = dict(open_dataset(dataset, data_root, custom).fragment)
    config = Config(fragment)
    for part in ("train", "val"):
        config[f"{part}_dataloader"].dataset.data_root = data_root or config[f"{part}_dataloader"].dataset.data_root
    check_annotations(config, ["train", "val"])
    scale = Scale(
        name=folder_name(dataset),
        datasets={"own": Given(dataset, json.dumps([label_hashes(config), not names_labels(dataset) and fragment]))},
        shards=Given(str(shards), ShardSet.open(shards).content_sha256) if shards else None,
        labels=(*(("--data-root", data_root) if data_root else ()), *_words(custom)),
    )
    test = json.loads(annotation_file(config.val_dataloader.dataset).read_bytes())["images"]
    return scale, Labels(len(images_with_objects(config.train_dataloader.dataset)), len(test), "own", "shards")


def _words(custom: CustomDatasetOptions) -> Iterator[str]:
    """The options as they are typed."""
    for name, value in custom.model_dump(exclude_defaults=True).items():
        yield f"--{name.replace('_', '-')}"
        yield from () if value is True else map(str, value) if isinstance(value, list | tuple) else (str(value),)


def _check_models(models: Sequence[str], prompted: Sequence[str]) -> None:
    """Check that models find masks, whose AP is compared, and that those of `prompted` can be given prompts."""
    with quiet_imports():
        from stage2_training.config.compose import read_fragment, read_prompt_variant
        from stage2_training.saliency_prompt.detectors import require_masks
    for name in models:
        require_masks(read_fragment("models", name).get("model", {}).get("type", ""))
    for name in prompted:
        read_prompt_variant(name)


def _row(model: str, start: str, labels: Labels) -> Row:
    return Row(model, labels.key, start, labels.masks if start in PRETRAINED else "")


def _parts(sizes: Sequence[int], train: int) -> list[int]:
    """The numbers of images below all; of the default ones, those that there are."""
    if sizes and max(sizes) > train:
        raise UserError(f"--sizes {max(sizes)}: there are {train} images with objects to train on")
    return sorted({size for size in sizes or SIZES if size < train})


def _score(run: Run) -> float:
    assert run.result is not None
    score: float = json.loads(run.result.read_text(encoding="utf-8"))["AP"]
    return score


def _draw(scores: Mapping[str, Scores], dashed: Mapping[str, Row], path: Path, seeds: Sequence[int]) -> None:
    """The picture, and its numbers as JSON beside it."""
    from stage2_training.evaluation.curves import plot_curves

    def point(images: int, values: Sequence[float]) -> dict[str, float]:
        band = {"lowest": min(values), "highest": max(values)} if len(values) > 1 else {}
        return {IMAGES: images, "AP": fmean(values), **band}

    curves = {name: [point(*item) for item in by_size.items()] for name, by_size in scores.items()}
    with writing(path):
        plot_curves(curves, path, over=IMAGES, dashed=[*dashed])
        write_json(path.with_suffix(".json"), {"seeds": seeds, "AP": scores})


def _conclusions(
    scores: Mapping[str, Scores], models: Sequence[str], starts: Sequence[str], baselines: Sequence[str]
) -> Iterator[str]:
    """A sentence for each model and each of its rivals: the pre-trained one against all others."""
    ours = next(start for start in STARTS if start in starts)
    for model in models:
        name = f"{model}, {STARTS[ours]}"
        rivals = [f"{model}, {STARTS[start]}" for start in dict.fromkeys(starts) if start != ours]
        for rival in dict.fromkeys([*rivals, *baselines]):
            if rival != name:
                yield conclude(scores[name], scores[rival], (name, rival.removeprefix(f"{model}, ")))


def _notes(labels: Labels, seeds: Sequence[int], epochs: int | None, scale: Scale) -> Iterator[str]:
    """What a reader must know."""
    listed = ", ".join(map(str, seeds))
    if len(seeds) > 1:
        yield f"Mean ± sample standard deviation over seeds {listed}; bands go from the lowest run to the highest."
        yield "A difference is clear if all seeds have its sign and its mean exceeds its standard deviation over them."
    else:
        yield f"One run each, with seed {listed}: the spread is unknown."
    yield (
        f"A seed decides which images are labelled (fewer are among more), pre-training and fine-tuning. The "
        f"{labels.test} test images are always the same; AP is that of the last epoch."
    )
    if epochs:
        yield f"Epochs of fine-tuning: {epochs}, so fewer images are fewer steps."
    elif labels.key == "own":
        yield "Fine-tuning is as long as `make finetune` makes it for so many images."
    else:
        yield "Fine-tuning on fewer images takes as many steps as on all."
