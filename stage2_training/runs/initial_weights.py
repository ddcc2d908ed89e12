"""Where a run's initial weights come from: random initialisation, a backbone, or a whole detector.

An `Initialisation` is cheap to create and has a `record` that is kept in the run's config, so that a work directory is
never continued from other weights. The weights are read only when a run starts.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stage1_proposals.backbones.catalogue import CATALOGUE
from stage1_proposals.backbones.weights import cached_download, locate_weights, network_outline, read_backbone_weights
from stage1_proposals.common.checkpoints import (
    TensorMatch,
    Tensors,
    match_tensors,
    read_checkpoint,
    strip_prefix,
    tensors_in,
)
from stage1_proposals.common.errors import UserError
from stage1_proposals.common.files import file_sha256
from stage1_proposals.shards import ShardSet
from stage2_training.data.dataset import CLUSTER_NAME
from stage2_training.engine.distributed import on_rank_zero
from stage2_training.runs.adapt_rows import adapt_rows
from stage2_training.runs.init_options import BACKBONES, DETECTORS, check_init
from stage2_training.runs.work_dir import WorkDir
from stage2_training.saliency_prompt.detectors import DetectorTraits, detector_traits

BACKBONE = ("backbone.",)
WRAPPED_BACKBONE = (*BACKBONE, "backbone.model.")  # and in a `TimmBackbone`

# K-Net with a ResNet-50, trained on COCO for 12 epochs, mask AP 34.0. It was trained on RGB images, normalised by
# ImageNet's mean and deviation (`to_rgb=True` in MMDetection 2, which loads BGR), as in configs/models/knet.py.
PUBLISHED_KNET = (
    "https://download.openmmlab.com/mim-example/knet/det/knet/knet_s3_r50_fpn_1x_coco/"
    "knet_s3_r50_fpn_1x_coco_20211016_113017-8a8645d4.pth"
)
PUBLISHED_KNET_SHA256 = "8a8645d4"  # first digits
KNET = (*BACKBONE, "neck.", "rpn_head.", "roi_head.")


@dataclass(frozen=True)
class WeightsRecord:
    """What initial weights are, as the run's config states it.

    Attributes:
        kind: `scratch`, `backbone`, `file`, or a name of the `--init` option.
        name: of the backbone, for kind `backbone`.
        sha256: of the file; None without a file, or where `kind` determines it.
    """

    kind: str
    name: str | None = None
    sha256: str | None = None

    def as_dict(self) -> dict[str, str]:
        """Return a JSON-serialisable dict of the attributes that are set."""
        return {key: value for key, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class Initialisation:
    """Initial weights that have not been read yet.

    Attributes:
        record: what they are, for the config.
        source: what they are, for messages.
        needed: leading names of the model's tensors that they must fill.
        read: returns the weights under the model's names, given the model's state dict.
        traits: of the detector, which say what need not be filled because of other classes, and which tensors can be
            adapted; None: the weights are a backbone's.
        hint: what to do when they do not fit.
    """

    record: WeightsRecord
    source: str
    needed: tuple[str, ...]
    read: Callable[[Tensors], Tensors]
    traits: DetectorTraits | None = None
    hint: str = "use a checkpoint of the same model and sizes"

    def match(self, target: Tensors) -> TensorMatch:
        """Read the weights and match them with the model's.

        Args:
            target: the model's state dict.

        Raises:
            UserError: the weights cannot be read or do not fill what they must.
        """
        weights, traits = self.read(target), self.traits or DetectorTraits()
        weights, adapted = adapt_rows(weights, target, traits)
        match = replace(match_tensors(weights, target, traits.class_branch if self.traits else None), adapted=adapted)
        match.require(self.needed, self.source, self.hint)
        return match


def by_name(
    name: str, model: str, detector: str, *, checkpoint: str | None = None, weights: str | None = None
) -> Initialisation:
    """Return the initial weights that fine-tuning's `--init` names.

    Args:
        name: `scratch`; one of `BACKBONES` or a backbone of the catalogue; one of `DETECTORS`; or a checkpoint file.
        model: name of the model's config.
        detector: type of the detector.
        checkpoint: for `DETECTORS`: file or pre-training's work directory, instead of the default one.
        weights: for a backbone: file, instead of the catalogue's.

    Raises:
        UserError: no such name or file, or options that do not go together.
    """
    check_init(name, checkpoint=checkpoint, weights=weights)
    if name in BACKBONES or name in CATALOGUE:
        return catalogue_backbone(name, weights)
    if name == "scratch":
        return scratch()
    if name == "coco":
        return published_knet(detector, checkpoint)
    if name in DETECTORS:
        return pretrained(model, detector, checkpoint, prompts=name == "sp")
    return checkpoint_file(name, detector)


def scratch() -> Initialisation:
    """The model's own initialisation."""
    return Initialisation(WeightsRecord("scratch"), "scratch", (), lambda target: {})


def stage1_backbone(shards: ShardSet) -> Initialisation:
    """The backbone whose features made the pseudo labels.

    Raises:
        UserError: its weights file is missing or is not the file that stage 1 used.
    """
    used = shards.backbone
    hint = f"pass --backbone {used.name} --weights FILE"
    entry = CATALOGUE.get(used.name)
    bundled = entry is not None and entry.url is None and not Path(used.weights or "").is_file()
    try:
        initialisation = backbone(used.name, None if bundled else used.weights)
    except UserError as error:
        raise UserError(f"{error}; {hint}") from error
    if initialisation.record.sha256 != used.sha256:
        raise UserError(f"{initialisation.source} is not the file that stage 1 used for {shards.directory}; {hint}")
    other = "the model's backbone is another than stage 1's: choose another --model, or pass --backbone NAME"
    return replace(initialisation, hint=other)


def backbone(name: str, weights: str | None = None) -> Initialisation:
    """A backbone of the catalogue or of timm's, by default with the catalogue's weights.

    Raises:
        UserError: no such name or file.
    """

    def locate() -> tuple[Path, str]:
        path = locate_weights(name, weights)
        return path, file_sha256(path)

    path, sha256 = on_rank_zero(locate)

    def read(target: Tensors) -> Tensors:
        return name_as_backbone(read_backbone_weights(name, path), target)

    return Initialisation(WeightsRecord("backbone", name, sha256), f"{name} ({path})", BACKBONE, read)


def catalogue_backbone(name: str, weights: str | None = None) -> Initialisation:
    """The catalogue's weights for the model's backbone.

    Args:
        name: a name of the catalogue, or one of `BACKBONES`, for whichever of its architectures the model has.
        weights: file, instead of the catalogue's.

    Raises:
        UserError: no such file; when read, the model's backbone has another architecture.
    """
    entries = {entry: CATALOGUE[entry] for entry in CATALOGUE if name == entry or name in entry.split("_")}
    if weights is not None and not Path(weights).is_file():
        raise UserError(f"backbone weights {weights}: no such file")
    record = WeightsRecord(name, sha256=weights and file_sha256(weights))

    def read(target: Tensors) -> Tensors:
        for entry, known in entries.items():
            if _has_architecture(target, known.architecture):
                return name_as_backbone(read_backbone_weights(entry, weights), target)
        architectures = ", ".join(known.architecture for known in entries.values())
        raise UserError(
            f"--init {name}: these are weights of {architectures}, and the model's backbone is another; "
            f"choose another --model, or pass weights that fit it as --init FILE"
        )

    return Initialisation(record, f"backbone {name}{f' ({weights})' if weights else ''}", BACKBONE, read)


def _has_architecture(target: Tensors, architecture: str) -> bool:
    """Return whether all tensors of a detector's backbone exist in this architecture, with the same shapes."""
    network = name_as_backbone(network_outline(architecture).state_dict(), target)
    inside = {name: tensor for name, tensor in target.items() if name.startswith(BACKBONE)}
    return bool(inside) and not match_tensors(network, inside).missing


def name_as_backbone(weights: Tensors, target: Tensors) -> dict[str, Tensor]:
    """Rename a bare backbone's tensors as they are named inside a detector.

    The detector has the backbone's names after a prefix: `backbone.`, or a longer one if the backbone is wrapped.
    """
    first = next(iter(weights))
    prefixes = [name.removesuffix(first) for name in target if name.startswith(BACKBONE) and name.endswith(first)]
    prefix = min(prefixes, key=len, default="backbone.")
    return {prefix + name: tensor for name, tensor in weights.items()}


def pretraining_dir(model: str, prompts: bool = True) -> Path:
    """Return the default work directory of pre-training a model, with Saliency Prompt or without."""
    return Path("work_dirs/pretrain") / (Path(model).stem + ("" if prompts else "-pseudo"))


def pretrained(model: str, detector: str, checkpoint: str | None = None, *, prompts: bool = True) -> Initialisation:
    """A detector that was pre-trained on pseudo labels.

    Args:
        model: name of its config, for the default work directory.
        detector: its type, which determines what must be transferred.
        checkpoint: file, or another work directory of pre-training.
        prompts: whether it was pre-trained with Saliency Prompt.

    Raises:
        UserError: no such checkpoint, or pre-training is not finished.
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
    needed = (*BACKBONE, *detector_traits(detector).pretrained_parts)
    return _detector("sp" if prompts else "pseudo", checkpoint, detector, needed)


def published_knet(detector: str, checkpoint: str | None = None) -> Initialisation:
    """K-Net as its authors trained it on COCO, from a file or downloaded once; all but the classifiers must fit.

    Raises:
        UserError: the model is not a K-Net, or the file is missing and cannot be downloaded.
    """
    if detector != "KNet":
        raise UserError(f"--init coco is a published K-Net, and the model is {detector}: choose --model knet")
    path = checkpoint or on_rank_zero(
        lambda: str(cached_download("the published K-Net", PUBLISHED_KNET, PUBLISHED_KNET_SHA256, "CHECKPOINT=FILE"))
    )
    hint = "it is the K-Net of configs/models/knet.py: use --model knet"
    return replace(_detector("coco", path, detector, KNET), hint=hint)


def checkpoint_file(path: str, detector: str) -> Initialisation:
    """A checkpoint of a detector, which must fill the backbone at least, or of a bare backbone.

    Args:
        detector: type of the model.

    Raises:
        UserError: no such file.
    """
    return _detector("file", path, detector, BACKBONE)


def _detector(kind: str, path: str, detector: str, needed: tuple[str, ...]) -> Initialisation:
    if not Path(path).is_file():
        raise UserError(f"{path}: no such checkpoint")
    traits = detector_traits(detector)

    def read(target: Tensors) -> Tensors:
        checkpoint = read_checkpoint(path)
        weights = tensors_in(checkpoint, path)
        if _has_pseudo_classes(checkpoint):  # an equal number of real classes would fit, with another meaning
            weights = {name: tensor for name, tensor in weights.items() if not traits.class_branch.search(name)}
        return _name_as_detector(weights, target)

    record = WeightsRecord(kind, sha256=on_rank_zero(lambda: file_sha256(path)))
    return Initialisation(record, path, needed, read, traits)


def _name_as_detector(weights: Tensors, target: Tensors) -> Tensors:
    """Name the tensors of a detector's or a backbone's checkpoint as the model does, whatever they are wrapped in."""
    stripped = strip_prefix(weights, target)
    if any(name in target for name in stripped):
        return stripped
    inside = (name.removeprefix(prefix) for prefix in WRAPPED_BACKBONE for name in target if name.startswith(prefix))
    bare = strip_prefix(weights, dict.fromkeys(inside, torch.empty(0)))
    return name_as_backbone(bare, target)


def _has_pseudo_classes(checkpoint: dict[str, Any]) -> bool:
    """Return whether a checkpoint's classes are clusters; a file of another program may state anything, or nothing."""
    try:
        return bool(checkpoint["meta"]["dataset_meta"]["classes"][0] == f"{CLUSTER_NAME} 0")
    except (KeyError, TypeError, IndexError):
        return False


def write_transfer(match: TensorMatch, path: Path, source: str) -> None:
    """Write every tensor's name and outcome to a JSON file, and the report beside it with the suffix `.txt`.

    Args:
        match: a checkpoint's tensors and the model's.
        source: the checkpoint, as the user knows it.
    """
    path.write_text(json.dumps(match.as_dict(), indent=2) + "\n")
    path.with_suffix(".txt").write_text(transfer_report(match, source) + "\n")


def transfer_report(match: TensorMatch, source: str) -> str:
    """Return what the user reads about the initial weights: their source, and how many tensors each part took."""
    return f"Initial weights: {source}\n{match.table()}"
