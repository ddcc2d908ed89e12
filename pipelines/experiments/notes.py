"""What differs from the paper's setting, read from the configs of the runs themselves."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mmengine.config import Config

from pipelines.experiments import paper
from pipelines.experiments.asked import Asked, ClassAgnostic, Finetuning, Pretraining
from pipelines.experiments.plan import generator_of, labelled_images, pretraining_run, run_of
from pipelines.experiments.runs import Run
from pipelines.experiments.scales import PAPER, Scale
from pipelines.experiments.workspace import Workspace

Facts = Mapping[str, str]


def seed_note(asked: Iterable[Asked], seeds: Sequence[int]) -> str:
    if len(seeds) == 1:
        return f"One run per row, with seed {seeds[0]}: nothing is known of the spread, as in the paper."
    return (
        f"Mean ± sample standard deviation over {of_seeds(asked, seeds)}; the paper does not say how many runs its "
        f"numbers are from."
    )


def of_seeds(asked: Iterable[Asked], seeds: Sequence[int]) -> str:
    """Which seeds, and what they are the seeds of."""
    asked = list(asked)
    pretrainings = list(filter(None, map(pretraining_of, asked)))
    seeded = {
        "random pseudo masks": any(each.masks == "random" for each in pretrainings),
        "pre-training": bool(pretrainings),
        "fine-tuning": any(isinstance(each, Finetuning) for each in asked),
    }
    *first, last = [name for name, there in seeded.items() if there]
    steps = f"{', '.join(first)} and {last} alike" if first else last
    return f"seeds {', '.join(map(str, seeds))}, of {steps}, on the same images and labels"


def scale_notes(asked: Iterable[Asked], scale: Scale) -> list[str]:
    """What is left out at a scale, and what stands for what."""
    asked, notes = list(asked), list[str]()
    missing = list(dict.fromkeys(filter(None, map(scale.lacks, asked))))
    if starts := [name for name, start in paper.STARTS.items() if start in missing]:
        notes.append(f"Left out: {', '.join(starts)}, whose weights are those of a ResNet-50.")
    had = [each for each in asked if scale.lacks(each) is None]
    if scale.images:
        if sets := [paper.DATASETS[name] for name in missing if name in paper.DATASETS]:
            notes.append(f"Left out: {', '.join(sets)}. The demo set would stand for it too: the same runs again.")
        for name in dict.fromkeys(each.dataset for each in had if isinstance(each, Finetuning)):
            part = "The first half of the demo set" if name == "coco5" else "The demo set"
            notes.append(
                f"{part} stands for {paper.DATASETS[name]}: {labelled_images(name, scale.images[1])} images to train "
                f"on, {scale.images[2]} to test on, with lines of text as in CTW1500, one class."
            )
        if any(isinstance(each, ClassAgnostic) for each in had):
            notes.append(
                f"The demo set's labelled images of objects stand for COCO's val images: {scale.images[2]} of the same "
                f"kind as the unlabeled ones, none of them among those. Only what was pasted on them is labelled."
            )
    if scale.backbone != PAPER.backbone and any(map(pretraining_of, had)):
        notes.append(
            f"Pseudo masks are found with {scale.backbone}, a backbone that was trained with ImageNet's labels, and "
            f"pre-training starts from it, on the demo set's unlabeled images, of which stage 1 sees "
            f"{scale.short_side} pixels (shorter side); the paper takes DenseCL's, trained without labels, and COCO "
            f"unlabeled2017, of which our stage 1 sees 800."
        )
    masks = {start.masks for start in map(pretraining_of, had) if start}
    if "freesolo" in masks and generator_of("freesolo", scale) == "freemask":
        notes.append(
            "FreeSOLO here is our `freemask`, the masks that FreeSOLO's own training starts from; the paper's are "
            "those of the model it trains."
        )
    return notes


def pretraining_of(asked: Asked) -> Pretraining | None:
    """What a number's run is pre-trained by, if it is."""
    if isinstance(asked, ClassAgnostic):
        return asked.pretraining
    return asked.start if isinstance(asked.start, Pretraining) else None


def setting_notes(asked: Iterable[Asked], scale: Scale, seeds: Sequence[int], workspace: Workspace) -> list[str]:
    """Settings other than the paper's, of finished runs: a line per set of differences, with the models it is for.

    Where seeds differ, which they should not, each has its own line.
    """
    models: dict[str, dict[str, None]] = defaultdict(dict)
    for each in asked:
        steps: list[tuple[str, str, list[Run], Facts]] = []
        if pretraining := pretraining_of(each):
            runs = [pretraining_run(pretraining, scale, seed) for seed in seeds]
            steps.append(("Pre-training", pretraining.model, runs, pretraining_facts()))
        if isinstance(each, Finetuning):
            runs = [run_of(each, scale, seed) for seed in seeds]
            steps.append(("Fine-tuning", each.model, runs, finetuning_facts(each)))
        for step, model, runs, printed in steps:
            found = [differences(facts(_config(run, workspace)), printed) for run in runs]
            for seed, line in zip(seeds, found, strict=True):
                name = model + scale.suffix + (f" (seed {seed})" if len(set(found)) > 1 else "")
                if line:
                    models[f"{step} of {{}}, and in parentheses the paper's: {line}."][name] = None
    return [line.format(", ".join(names)) for line, names in models.items()]


def _config(run: Run, workspace: Workspace) -> Config:
    return Config.fromfile(workspace.directory(run) / "config.py", import_custom_modules=False)


def differences(here: Facts, printed: Facts) -> str:
    """What is not as printed, as `name here (printed)`; what either does not have is left out."""
    return ", ".join(
        f"{name} {here[name]} ({printed[name]})" for name in printed if name in here and here[name] != printed[name]
    )


def facts(config: Mapping[str, Any]) -> Facts:
    """What a composed config is judged by."""
    model, training = config["model"], config["train_dataloader"]["dataset"]
    optimizer = config["optim_wrapper"]["optimizer"]
    resize = next(step for step in training["pipeline"] if step["type"] == "Resize")
    found = {
        "backbone": model["backbone"].get("model_name") or f"ResNet-{model['backbone']['depth']}",
        "image size": " x ".join(map(str, resize["scale"])),
        "batch": str(config["train_cfg"]["total_batch"]),
        "epochs": str(config["train_cfg"]["max_epochs"]),
        "optimizer": optimizer["type"],
        "learning rate": f"{optimizer['lr']:g}",
    }
    if "pseudo_labels" in config:
        found["images"] = f"{config['pseudo_labels']['images']:,}"
    if "saliency_prompt" in model:  # runs from before `rescale` do not name it; their prompts kept their length
        found["prompts' length"] = "the kernels'" if model["saliency_prompt"].get("rescale") else "their own"
    for part, number in (("rpn_head", "num_kernels"), ("rpn_head", "num_proposals"), ("panoptic_head", "num_queries")):
        if number in model.get(part, {}):
            found["kernels or queries"] = str(model[part][number])
    return found


def pretraining_facts() -> Facts:
    """The paper's; the images' size is that of the authors' later release."""
    return {
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


def finetuning_facts(asked: Finetuning) -> Facts:
    """The paper's; how large Cityscapes' images were is said nowhere."""
    cnn = asked.model in paper.CNNS
    unsaid = ["image size"] if asked.dataset == "cityscapes" else []
    return {
        **{name: value for name, value in pretraining_facts().items() if name not in unsaid},
        "epochs": str(asked.epochs or paper.EPOCHS[asked.dataset]),
        "optimizer": "SGD" if cnn else "AdamW",
        "learning rate": "0.02" if cnn else "0.0001",
    }
