"""What a reader of a table or figure must know: its seeds, and what is not as in the paper."""

from collections.abc import Iterator, Sequence

from pipelines.demo_data.demo_set import Counts
from pipelines.experiments.paper import DATASETS, INITS, Experiment, Row
from pipelines.experiments.scales import Given, Scale

# By experiments, and the scale they are at; empty: any.
NOTES = (
    ("table1", "paper", "The paper prints AP_M 25.9 and AP_L 16.6 for SwAV on COCO 5 %, probably swapped."),
    ("table3", "", "On CTW1500 the paper fine-tunes for 20 epochs after SP, and for 80 from other initialisations."),
    (
        "table2 table3 figure4",
        "paper",
        "CTW1500 is tested at 1333 x 800 after the last epoch; the authors' later release tests at 1600 and reports "
        "the best epoch (`make evaluate OPTS='--image-size 1600'`).",
    ),
    (
        "table2 figure4",
        "paper",
        "An epoch of Cityscapes takes each image 8 times on a GPU, as the later release does: 192 passes in all.",
    ),
    ("table5 table7", "", "Without prompts (PROMPTS=off) there is no kernel supervision, which is Table 4's subject."),
    (
        "table6",
        "",
        "FreeSOLO, UP-DETR and DETReg are pre-trained here, DETReg on boxes of `merging` in place of selective search; "
        "docs/models.md lists what differs from their publications.",
    ),
    ("figure5", "paper", "The images are unlabeled ones."),
    ("figure5", "demo", "The images are test images: the unlabeled ones show no text."),
    (
        "figure6",
        "",
        "Fine-tuned for two epochs at most, the paper's number. Its K-Net trained on all COCO is left out.",
    ),
)


def notes(experiment: Experiment, scale: Scale, seeds: Sequence[int]) -> Iterator[str]:
    """The notes, each only where it is true.

    Args:
        seeds: all that were asked for.
    """
    rows = scale.rows(experiment)
    pretrained = [row for row in rows if row.masks]
    yield seed_note(experiment, seeds)
    yield from (note for names, at, note in NOTES if experiment.name in names.split() and at in ("", scale.name))
    if scale.generator("freesolo") == "freemask" and any(row.masks == "freesolo" for row in rows):
        yield "FreeSOLO is our `freemask`: the masks that FreeSOLO's own training starts from."
    yield from left_out(experiment, rows)
    if scale.suffix:
        yield from demo_notes(scale, rows)
    if any(row.init == "sp" and row.model == "knet" for row in rows):
        yield "K-Net's prompts have the length of its kernels, the paper's their own."
    if any(row.model in ("knet", "queryinst", "mask2former") for row in rows):
        yield "Scores also tell the best of several masks of one object (docs/models.md), the paper's do not."
    if pretrained and scale.pretrain_epochs:
        yield f"Epochs of pre-training: {scale.pretrain_epochs} (the paper: 12)."
    if scale.finetune_epochs and any(row.epochs != 0 for row in rows):
        yield f"Epochs of fine-tuning: at most {scale.finetune_epochs} (the paper: 24 to 96, by dataset)."


def seed_note(experiment: Experiment, seeds: Sequence[int]) -> str:
    """How many runs a number or line comes from."""
    shown = experiment.shown_seeds(seeds)
    if len(shown) > 1:
        lines = "Lines are means, bands go from the lowest run to the highest,"
        how = lines if experiment.picture else "Mean ± sample standard deviation"
        return f"{how} over seeds {', '.join(map(str, shown))}; images and labels are the same for all seeds."
    first = f", the first of {', '.join(map(str, seeds))}" if len(seeds) > 1 else ""
    return f"One run each, with seed {shown[0]}{first}: the spread is unknown, as in the paper."


def left_out(experiment: Experiment, rows: Sequence[Row]) -> Iterator[str]:
    """What of the paper's rows the scale does not have."""
    missing = [row for row in experiment.rows if row not in rows]
    inits = {row.init for row in missing} - {row.init for row in rows}
    datasets = {row.dataset for row in missing} - {row.dataset for row in rows}
    if names := [name for key, name in INITS.items() if key in inits]:
        yield f"Left out: {', '.join(names)}, whose weights are a ResNet-50's."
    if names := [name for key, name in DATASETS.items() if key in datasets]:
        yield f"Left out: {', '.join(names)}, which would be the demo set again."


def demo_notes(scale: Scale, rows: Sequence[Row]) -> Iterator[str]:
    """What stands for the paper's data and sizes at demo scale."""
    counts = scale.datasets["coco10"]
    if isinstance(counts, Given):
        yield f"Pre-trained on the images of {scale.unlabeled}, evaluated on {counts}."
    elif any(row.epochs != 0 for row in rows):
        assert isinstance(counts, Counts)
        half = ", half of them for COCO 5 %" if any(row.dataset == "coco5" for row in rows) else ""
        yield (
            f"The demo set replaces the labelled datasets: {counts.train} images to train on{half}, {counts.test} to "
            f"test on, with lines of text, one class."
        )
    else:
        yield "Images like the unlabeled ones, with the objects pasted on them labelled, replace the labelled dataset."
    if any(row.masks for row in rows):
        yield "Pseudo masks are found by a backbone trained on ImageNet's labels (the paper: DenseCL)."
    yield (
        "Sizes that are not the paper's: EfficientNet-Lite0 (ResNet-50), images of 192 x 192 pixels (1333 x 800), "
        "batches of 8 (96), 50 kernels or queries (100), other learning rates."
    )
