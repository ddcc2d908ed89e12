"""Where a run's initial weights come from: stage 1's backbone, a supervised one, a pre-trained detector, nothing.

An `Initialisation` is cheap to make and says what it is (`record`, kept in the run's config, so that a work
directory is never continued from other weights); the weights are read only when a run starts.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from stage1_proposals.backbones import new_network, read_backbone_weights
from stage1_proposals.catalogue import CATALOGUE
from stage1_proposals.errors import UserError
from stage1_proposals.shards import ShardSet
from stage1_proposals.weights import file_sha256, locate_weights
from stage2_training.data.dataset import CLUSTER_NAME
from stage2_training.engine import read_checkpoint, weights_in
from stage2_training.transfer import CLASS_BRANCH, ESSENTIAL, Weights, name_backbone
from stage2_training.work_dir import WorkDir

BACKBONE = ("backbone.",)


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


def scratch() -> Initialisation:
    """The model's own initialisation."""
    return Initialisation({"kind": "scratch"}, "scratch", (), lambda target: {})


def stage1_backbone(shards: ShardSet) -> Initialisation:
    """The backbone whose features made the pseudo labels.

    Raises:
        UserError: its weights file is gone, or is not the file stage 1 used.
    """
    used = shards.backbone
    hint = f"pass --backbone {used['name']} --backbone-weights FILE"
    entry = CATALOGUE.get(used["name"])
    bundled = entry is not None and entry.url is None and not Path(used["weights"] or "").is_file()
    try:
        initialisation = backbone(used["name"], None if bundled else used["weights"])
    except UserError as error:
        raise UserError(f"{error}; {hint}") from error
    if initialisation.record["sha256"] != used["sha256"]:
        raise UserError(f"{initialisation.source} is not the file that stage 1 used for {shards.directory}; {hint}")
    other = "the model's backbone is another than stage 1's: choose another --model, or pass --backbone NAME"
    return replace(initialisation, hint=other)


def backbone(name: str, weights: str | None = None) -> Initialisation:
    """A backbone of the catalogue or of timm's, from its file.

    Raises:
        UserError: no such name or file.
    """
    path = locate_weights(name, weights)
    record = {"kind": "backbone", "name": name, "sha256": file_sha256(path)}

    def read(target: Weights) -> Weights:
        return name_backbone(read_backbone_weights(name, path), target)

    return Initialisation(record, f"{name} ({path})", BACKBONE, read)


def supervised_backbone(weights: str | None = None) -> Initialisation:
    """The model's backbone trained with ImageNet's labels.

    Raises:
        UserError: there is no such file; on reading, the catalogue has none for this backbone.
    """
    record = {"kind": "imagenet"}
    if weights is not None:
        if not Path(weights).is_file():
            raise UserError(f"backbone weights {weights}: no such file")
        record["sha256"] = file_sha256(weights)

    def read(target: Weights) -> Weights:
        for name, entry in CATALOGUE.items():
            if "imagenet" in name and _has_architecture(target, entry.architecture):
                return name_backbone(read_backbone_weights(name, weights), target)
        raise UserError("the catalogue has no ImageNet weights for this model's backbone; pass --init FILE")

    return Initialisation(record, weights or "ImageNet weights", BACKBONE, read)


def pretrained(model: str, detector: str, checkpoint: str | None = None) -> Initialisation:
    """A detector pre-trained with Saliency Prompt.

    Args:
        model: name of its model fragment, whose pre-training's work directory is the default.
        detector: type of the vanilla detector; decides what must be taken.

    Raises:
        UserError: no such checkpoint, or an unfinished pre-training.
    """
    if checkpoint is None:
        work = WorkDir(pretraining_dir(model))
        latest = work.latest_checkpoint()
        if latest is None or work.result() is None:
            state = "is not finished" if latest else "was not run"
            raise UserError(
                f"pre-training of {model} {state} in {work.path}: run `make pretrain`, or pass --checkpoint FILE"
            )
        checkpoint = str(latest)
    return _detector("sp", checkpoint, (*BACKBONE, *ESSENTIAL.get(detector, ())))


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

    return Initialisation({"kind": kind, "sha256": file_sha256(path)}, path, needed, read)


def _has_pseudo_classes(checkpoint: dict[str, Any]) -> bool:
    """Whether a checkpoint's classes are clusters; a file made elsewhere may say nothing, or anything, of its own."""
    try:
        return bool(checkpoint["meta"]["dataset_meta"]["classes"][0] == f"{CLUSTER_NAME} 0")
    except (KeyError, TypeError, IndexError):
        return False


def pretraining_dir(model: str) -> Path:
    """Where pre-training a model goes by default."""
    return Path("work_dirs/pretrain") / Path(model).stem


def _has_architecture(target: Weights, architecture: str) -> bool:
    """Whether a detector's backbone is of this architecture: each of its tensors exists there, in the same shape."""
    with torch.device("meta"):
        bare = name_backbone(new_network(architecture).state_dict(), target)
    inside = [name for name in target if name.startswith(BACKBONE)]
    return all(name in bare and bare[name].shape == target[name].shape for name in inside)
