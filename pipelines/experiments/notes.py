"""Notes below a table or figure: its seeds, what the demo set replaces, and settings that are not the paper's."""

from collections.abc import Iterator, Sequence

from pipelines.experiments import paper_tables
from pipelines.experiments.plan import generator_of
from pipelines.experiments.scales import PAPER, ClassAgnostic, FineTuning, Scale, Target

EPOCHS = (20, *paper_tables.EPOCHS.values())  # the paper's, of fine-tuning


def seed_note(targets: Sequence[Target], seeds: Sequence[int]) -> str:
    """Which seeds the numbers come from, and what the seeds decide."""
    if len(seeds) == 1:
        return f"One run per row, with seed {seeds[0]}: the spread is unknown, as in the paper."
    return (
        f"Mean ± sample standard deviation over {seeds_of(targets, seeds)}; the paper does not say how many runs its "
        f"numbers come from."
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
    """What is left out at a scale, and what replaces what."""
    absent = list(dict.fromkeys(filter(None, (scale.missing(target) for target in targets))))
    present = [target for target in targets if scale.missing(target) is None]
    if backbones := [name for init, name in paper_tables.INITS.items() if init in absent]:
        yield f"Left out: {', '.join(backbones)}, whose weights are those of a ResNet-50."
    if scale.images:
        test = scale.images[2]
        if datasets := [paper_tables.DATASETS[name] for name in absent if name in paper_tables.DATASETS]:
            yield f"Left out: {', '.join(datasets)}. The demo set would replace it too, and the runs would be the same."
        for name in dict.fromkeys(target.dataset for target in present if isinstance(target, FineTuning)):
            yield (
                f"{'The first half of the demo set' if name == 'coco5' else 'The demo set'} replaces "
                f"{paper_tables.DATASETS[name]}: {scale.training_images(name)} images to train on, {test} to test on, "
                f"with lines of text as in CTW1500, one class."
            )
        if any(isinstance(target, ClassAgnostic) for target in present):
            yield (
                f"The demo set's labelled images of objects replace COCO's val images: {test} of the same kind as "
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


def settings_note(scale: Scale) -> str:
    """Where a scale's settings differ from the paper's, whose own are in parentheses."""
    changes = ["K-Net's prompts have the kernels' length (their own)"]
    if scale.images:
        changes += ["EfficientNet-Lite0 (ResNet-50)", "images of 192 x 192 pixels (1333 x 800)", "batches of 8 (96)"]
        changes += ["50 kernels or queries (100)", "other learning rates"]
    if scale.pretrain_epochs:
        changes.append(f"{scale.pretrain_epochs} epochs of pre-training (12)")
    if scale.finetune_epochs:
        changes.append(f"at most {scale.finetune_epochs} of fine-tuning ({min(EPOCHS)} to {max(EPOCHS)})")
    return f"Settings that are not the paper's: {', '.join(changes)}. All are in config.py in each run's directory."
