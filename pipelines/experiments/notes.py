"""What a reader must know of our numbers: seeds, what stands for what, and settings that are not the paper's."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from mmengine.config import Config

from pipelines.experiments import paper_tables
from pipelines.experiments.execute import Workspace
from pipelines.experiments.plan import Run, generator_of, pretraining_run, run_for
from pipelines.experiments.scales import PAPER, ClassAgnostic, FineTuning, Scale, Target


def seed_note(targets: Sequence[Target], seeds: Sequence[int]) -> str:
    """Which seeds the numbers are from, and what the seeds decide."""
    if len(seeds) == 1:
        return f"One run per row, with seed {seeds[0]}: nothing is known of the spread, as in the paper."
    return (
        f"Mean ± sample standard deviation over {seeds_of(targets, seeds)}; the paper does not say how many runs its "
        f"numbers are from."
    )


def seeds_of(targets: Sequence[Target], seeds: Sequence[int]) -> str:
    seeded = {
        "random pseudo masks": any(t.pretraining and t.pretraining.masks == "random" for t in targets),
        "pre-training": any(t.pretraining for t in targets),
        "fine-tuning": any(isinstance(t, FineTuning) for t in targets),
    }
    *first, last = [name for name, is_seeded in seeded.items() if is_seeded]
    steps = f"{', '.join(first)} and {last} alike" if first else last
    return f"seeds {', '.join(map(str, seeds))}, of {steps}, on the same images and labels"


def scale_notes(targets: Sequence[Target], scale: Scale) -> Iterator[str]:
    """What is left out at a scale, and what stands for what."""
    absent = list(dict.fromkeys(filter(None, (scale.missing(target) for target in targets))))
    present = [target for target in targets if scale.missing(target) is None]
    if backbones := [name for init, name in paper_tables.INITS.items() if init in absent]:
        yield f"Left out: {', '.join(backbones)}, whose weights are those of a ResNet-50."
    if scale.images:
        test = scale.images[2]
        if datasets := [paper_tables.DATASETS[name] for name in absent if name in paper_tables.DATASETS]:
            yield f"Left out: {', '.join(datasets)}. The demo set would stand for it too: the same runs again."
        for name in dict.fromkeys(target.dataset for target in present if isinstance(target, FineTuning)):
            yield (
                f"{'The first half of the demo set' if name == 'coco5' else 'The demo set'} stands for "
                f"{paper_tables.DATASETS[name]}: {scale.training_images(name)} images to train on, {test} to test on, "
                f"with lines of text as in CTW1500, one class."
            )
        if any(isinstance(target, ClassAgnostic) for target in present):
            yield (
                f"The demo set's labelled images of objects stand for COCO's val images: {test} of the same kind as "
                f"the unlabeled ones, none of them among those. Only what was pasted on them is labelled."
            )
    if scale.backbone != PAPER.backbone and any(target.pretraining for target in present):
        yield (
            f"Pseudo masks are found with {scale.backbone}, a backbone that was trained with ImageNet's labels, and "
            f"pre-training starts from it, on the demo set's unlabeled images, resized by stage 1 as "
            f"{' '.join(scale.proposals[:2])}; the paper takes DenseCL's, trained without labels, and COCO "
            f"unlabeled2017, which our stage 1 resizes to 800 pixels."
        )
    masks = {target.pretraining.masks for target in present if target.pretraining}
    if "freesolo" in masks and generator_of("freesolo", scale) == "freemask":
        yield (
            "FreeSOLO here is our `freemask`, the masks that FreeSOLO's own training starts from; the paper's are "
            "those of the model it trains."
        )


def setting_notes(targets: Iterable[Target], scale: Scale, seeds: Sequence[int], workspace: Workspace) -> list[str]:
    """Settings of finished runs that are not the paper's: a line per set of differences, with its models.

    Seeds have a line each where their settings differ, as they should not.
    """
    models: dict[str, dict[str, None]] = defaultdict(dict)  # the inner is an ordered set
    for target in targets:
        steps: list[tuple[str, str, list[Run], Mapping[str, str]]] = []
        if pretraining := target.pretraining:
            runs = [pretraining_run(pretraining, scale, seed) for seed in seeds]
            steps.append(("Pre-training", pretraining.model, runs, PRETRAINING))
        if isinstance(target, FineTuning):
            runs = [run_for(target, scale, seed) for seed in seeds]
            steps.append(("Fine-tuning", target.model, runs, paper_finetuning(target)))
        for step, model, runs, paper in steps:
            found = [differences(settings_of(_read_config(run, workspace)), paper) for run in runs]
            for seed, line in zip(seeds, found, strict=True):
                name = model + scale.suffix + (f" (seed {seed})" if len(set(found)) > 1 else "")
                if line:
                    models[f"{step} of {{}}, and in parentheses the paper's: {line}."][name] = None
    return [line.format(", ".join(names)) for line, names in models.items()]


def _read_config(run: Run, workspace: Workspace) -> Config:
    return Config.fromfile(workspace.directory(run) / "config.py", import_custom_modules=False)


def differences(ours: Mapping[str, str], paper: Mapping[str, str]) -> str:
    """Settings in both that differ, as `name ours (paper's)`."""
    return ", ".join(
        f"{name} {ours[name]} ({paper[name]})" for name in paper if name in ours and ours[name] != paper[name]
    )


def settings_of(config: Mapping[str, Any]) -> Mapping[str, str]:
    """The settings of a composed config that are compared with the paper's."""
    model, training = config["model"], config["train_dataloader"]["dataset"]
    optimizer = config["optim_wrapper"]["optimizer"]
    resize = next(step for step in training["pipeline"] if step["type"] == "Resize")
    settings = {
        "backbone": model["backbone"].get("model_name") or f"ResNet-{model['backbone']['depth']}",
        "image size": " x ".join(map(str, resize["scale"])),
        "batch": str(config["train_cfg"]["total_batch"]),
        "epochs": str(config["train_cfg"]["max_epochs"]),
        "optimizer": optimizer["type"],
        "learning rate": f"{optimizer['lr']:g}",
    }
    if "pseudo_labels" in config:
        settings["images"] = f"{config['pseudo_labels']['images']:,}"
    if "saliency_prompt" in model:
        settings["prompts' length"] = "the kernels'" if model["saliency_prompt"].get("rescale") else "their own"
    for part, number in (("rpn_head", "num_kernels"), ("rpn_head", "num_proposals"), ("panoptic_head", "num_queries")):
        if number in model.get(part, {}):
            settings["kernels or queries"] = str(model[part][number])
    return settings


# The paper's settings of pre-training; the image size is that of the authors' later release.
PRETRAINING = {
    "backbone": "ResNet-50",
    "images": "123,403",  # COCO unlabeled2017
    "image size": "1333 x 800",
    "kernels or queries": "100",
    "batch": "96",
    "epochs": "12",
    "prompts' length": "their own",  # Eq. 8
    "optimizer": "AdamW",
    "learning rate": "0.0001",
}


def paper_finetuning(target: FineTuning) -> Mapping[str, str]:
    """The paper's settings of fine-tuning; it does not state the image size of Cityscapes."""
    epochs = {"epochs": str(target.epochs or paper_tables.EPOCHS[target.dataset])}
    sgd = {"optimizer": "SGD", "learning rate": "0.02"} if target.model in paper_tables.CNNS else {}
    settings = {**PRETRAINING, **epochs, **sgd}
    return {name: v for name, v in settings.items() if name != "image size" or target.dataset != "cityscapes"}
