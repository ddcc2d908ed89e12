"""Where a run's initial weights come from: stage 1's backbone, one of the catalogue, a whole detector, nothing.

An `Initialisation` is cheap to make and says what it is (`record`, kept in the run's config, so that a work
directory is never continued from other weights); the weights are read only when a run starts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from stage1_proposals.backbones.catalogue import CATALOGUE
from stage1_proposals.backbones.extractor import new_network, read_backbone_weights
from stage1_proposals.backbones.weights import cached_download, file_sha256, locate_weights
from stage1_proposals.common.errors import UserError
from stage1_proposals.shards import ShardSet
from stage2_training.data.dataset import CLUSTER_NAME
from stage2_training.engine import read_checkpoint, weights_in
from stage2_training.engine.distributed import on_rank_zero
from stage2_training.runs.transfer import CLASS_BRANCH, ESSENTIAL, Weights, name_backbone
from stage2_training.runs.work_dir import WorkDir

BACKBONE = ("backbone.",)

# How a backbone was trained, as the catalogue's names say it: `densecl` is `densecl_r50`, for a ResNet-50.
BACKBONES = ("imagenet", "densecl", "swav", "mocov2")
DETECTORS = ("sp", "pseudo", "coco")

# K-Net with a ResNet-50, trained on COCO for 12 epochs, mask AP 34.0. Trained on RGB, normalised by ImageNet's mean and
# deviation (`to_rgb=True` of MMDetection 2, which loads BGR): what LoadRGBImage and configs/models/knet.py give it.
PUBLISHED_KNET = (
    "https://download.openmmlab.com/mim-example/knet/det/knet/knet_s3_r50_fpn_1x_coco/"
    "knet_s3_r50_fpn_1x_coco_20211016_113017-8a8645d4.pth"
)
PUBLISHED_KNET_SHA256 = "8a8645d4"  # its head
KNET = (*BACKBONE, "neck.", "rpn_head.", "roi_head.")


@dataclass(frozen=True)
class Initialisation:
    """Initial weights that are not read yet.

    Attributes:
        record: what they are, in plain values.
        source: what they are, for messages.
        needed: leading names of the model's tensors that they must fill.
        read: from the model's state dict to weights in the model's names.
        hint: what to do when they do not fit.
    """

    record: dict[str, Any]
    source: str
    needed: tuple[str, ...]
    read: Callable[[Weights], Weights]
    hint: str = "use a checkpoint of the same model and sizes"


def by_name(
    name: str, model: str, detector: str, *, checkpoint: str | None = None, weights: str | None = None
) -> Initialisation:
    """What fine-tuning starts from, as its command names it.

    Args:
        name: `scratch`; a backbone, one of `BACKBONES` or a name of the catalogue; one of `DETECTORS`; or a file.
        model: name of the model's fragment.
        detector: type of the vanilla detector.
        checkpoint: file or pre-training's work directory, of one of `DETECTORS`, when not the default.
        weights: file of a backbone, when not the catalogue's.

    Raises:
        UserError: there is no such name or file, or what was given does not go together.
    """
    if checkpoint and name not in DETECTORS:
        raise UserError(
            f"--checkpoint goes with --init {_either(DETECTORS)}, not {name}; or pass the file as --init FILE"
        )
    if name in BACKBONES or name in CATALOGUE:
        return catalogue_backbone(name, weights)
    if weights:
        raise UserError(f"--backbone-weights goes with --init {_either(BACKBONES)}, not {name}")
    if name == "scratch":
        return scratch()
    if name == "coco":
        return published_knet(detector, checkpoint)
    if name in DETECTORS:
        return pretrained(model, detector, checkpoint, prompts=name == "sp")
    if not Path(name).is_file():
        raise UserError(f"--init {name}: use {_either(('scratch', *BACKBONES, *DETECTORS))}, or a checkpoint's file")
    return checkpoint_file(name)


def _either(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"


def scratch() -> Initialisation:
    """The model's own initialisation."""
    return Initialisation({"kind": "scratch"}, "scratch", (), lambda target: {})


def stage1_backbone(shards: ShardSet) -> Initialisation:
    """The backbone whose features made the pseudo labels.

    Raises:
        UserError: its weights file is gone, or is not the file stage 1 used.
    """
    used = shards.backbone
    hint = f"pass --backbone {used.name} --backbone-weights FILE"
    entry = CATALOGUE.get(used.name)
    bundled = entry is not None and entry.url is None and not Path(used.weights or "").is_file()
    try:
        initialisation = backbone(used.name, None if bundled else used.weights)
    except UserError as error:
        raise UserError(f"{error}; {hint}") from error
    if initialisation.record["sha256"] != used.sha256:
        raise UserError(f"{initialisation.source} is not the file that stage 1 used for {shards.directory}; {hint}")
    other = "the model's backbone is another than stage 1's: choose another --model, or pass --backbone NAME"
    return replace(initialisation, hint=other)


def backbone(name: str, weights: str | None = None) -> Initialisation:
    """A backbone of the catalogue or of timm's, from its file.

    Raises:
        UserError: no such name or file.
    """
    path, sha256 = on_rank_zero(lambda: _located(name, weights))
    record = {"kind": "backbone", "name": name, "sha256": sha256}

    def read(target: Weights) -> Weights:
        return name_backbone(read_backbone_weights(name, path), target)

    return Initialisation(record, f"{name} ({path})", BACKBONE, read)


def _located(name: str, weights: str | None) -> tuple[Path, str]:
    """The file of a backbone, downloaded if need be, and its SHA-256."""
    path = locate_weights(name, weights)
    return path, file_sha256(path)


def catalogue_backbone(name: str, weights: str | None = None) -> Initialisation:
    """The model's backbone as the catalogue has it.

    Args:
        name: one of `BACKBONES`, for whichever of its architectures is the model's, or a name of the catalogue.
        weights: file, when not the catalogue's own.

    Raises:
        UserError: there is no such file; on reading, the model's backbone has another architecture.
    """
    entries = {entry: CATALOGUE[entry] for entry in CATALOGUE if name == entry or name in entry.split("_")}
    record = {"kind": name}
    if weights is not None:
        if not Path(weights).is_file():
            raise UserError(f"backbone weights {weights}: no such file")
        record["sha256"] = file_sha256(weights)

    def read(target: Weights) -> Weights:
        for entry, known in entries.items():
            if _has_architecture(target, known.architecture):
                return name_backbone(read_backbone_weights(entry, weights), target)
        architectures = ", ".join(known.architecture for known in entries.values())
        raise UserError(
            f"--init {name}: these are weights of {architectures}, and the model's backbone is another; "
            f"choose another --model, or pass weights that fit it as --init FILE"
        )

    return Initialisation(record, f"backbone {name}{f' ({weights})' if weights else ''}", BACKBONE, read)


def pretrained(model: str, detector: str, checkpoint: str | None = None, *, prompts: bool = True) -> Initialisation:
    """A detector that was pre-trained on pseudo labels.

    Args:
        model: name of its model fragment, whose pre-training's work directory is the default.
        detector: type of the vanilla detector; decides what must be taken.
        checkpoint: a checkpoint, or another work directory of pre-training.
        prompts: whether it was pre-trained with Saliency Prompt.

    Raises:
        UserError: no such checkpoint, or an unfinished pre-training.
    """
    if checkpoint is None or Path(checkpoint).is_dir():
        work = WorkDir(checkpoint or pretraining_dir(model, prompts))
        latest = work.latest_checkpoint()
        if latest is None or work.result() is None:
            state = "is not finished" if latest else "was not run"
            command = f"make pretrain{'' if prompts else ' PROMPTS=off'}"
            raise UserError(
                f"pre-training of {model} {state} in {work.path}: run `{command}`, or pass --checkpoint FILE"
            )
        checkpoint = str(latest)
    return _detector("sp" if prompts else "pseudo", checkpoint, (*BACKBONE, *ESSENTIAL.get(detector, ())))


def published_knet(detector: str, checkpoint: str | None = None) -> Initialisation:
    """K-Net as its authors trained it on COCO, from a file or downloaded once; all but the classifiers must fit.

    Raises:
        UserError: the model is no K-Net, or the file cannot be had.
    """
    if detector != "KNet":
        raise UserError(f"--init coco is a published K-Net, and the model is {detector}: choose --model knet")
    path = checkpoint or on_rank_zero(
        lambda: str(cached_download("the published K-Net", PUBLISHED_KNET, PUBLISHED_KNET_SHA256, "CHECKPOINT=FILE"))
    )
    return replace(_detector("coco", path, KNET), hint="it is the K-Net of configs/models/knet.py: use --model knet")


def checkpoint_file(path: str) -> Initialisation:
    """Any checkpoint: a detector's, of which the backbone at least is needed, or a bare backbone's."""
    return _detector("file", path, BACKBONE)


def _detector(kind: str, path: str, needed: tuple[str, ...]) -> Initialisation:
    if not Path(path).is_file():
        raise UserError(f"{path}: no such checkpoint")

    def read(target: Weights) -> Weights:
        checkpoint = read_checkpoint(path)
        weights = weights_in(checkpoint, path)
        if _has_pseudo_classes(checkpoint):  # as many real classes would fit, and mean something else
            weights = {name: tensor for name, tensor in weights.items() if not CLASS_BRANCH.search(name)}
        return weights if any(name in target for name in weights) else name_backbone(weights, target)

    return Initialisation({"kind": kind, "sha256": on_rank_zero(lambda: file_sha256(path))}, path, needed, read)


def _has_pseudo_classes(checkpoint: dict[str, Any]) -> bool:
    """Whether a checkpoint's classes are clusters; a file made elsewhere may say nothing, or anything, of its own."""
    try:
        return bool(checkpoint["meta"]["dataset_meta"]["classes"][0] == f"{CLUSTER_NAME} 0")
    except (KeyError, TypeError, IndexError):
        return False


def pretraining_dir(model: str, prompts: bool = True) -> Path:
    """Where pre-training a model goes by default, with Saliency Prompt and without."""
    return Path("work_dirs/pretrain") / (Path(model).stem + ("" if prompts else "-pseudo"))


def _has_architecture(target: Weights, architecture: str) -> bool:
    """Whether a detector's backbone is of this architecture: each of its tensors exists there, in the same shape."""
    with torch.device("meta"):
        bare = name_backbone(new_network(architecture).state_dict(), target)
    inside = [name for name in target if name.startswith(BACKBONE)]
    return bool(inside) and all(name in bare and bare[name].shape == target[name].shape for name in inside)
