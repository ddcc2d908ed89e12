"""Reading tensors from checkpoint files without running code, and matching them with a network's by name and shape."""

import argparse
import pickle
import re
from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from stage1_proposals.common.errors import UserError

Tensors = Mapping[str, Tensor]

# Classes that public training scripts store beside the weights, and that hold nothing but data: DINO, DeiT and MAE
# keep their command line's options.
_DATA_CLASSES: list[Any] = [argparse.Namespace]
# Keys under which public releases keep the state dict. DINO's authors publish and evaluate the teacher.
_NESTINGS = (
    *("state_dict", "model", "teacher", "student", "model_state_dict", "model_state", "module", "net", "network"),
    *("params", "weights"),
)
_MAX_NESTING = 4  # a pickle may contain itself
# Prefixes of a backbone's names: MMSelfSup and DINO `backbone.`, MoCo `module.encoder_q.` (OpenSelfSup `encoder_q.0.`,
# MoCo v3 `module.base_encoder.`), SwAV `module.`, DINOv2's trainer `teacher.backbone.`, SimMIM `encoder.`, Lightning
# `model.`; torchvision, timm and DenseCL's export have none. A contrastive learner's momentum encoder (`encoder_k.`,
# `momentum_encoder.`) is left out on purpose: the trained encoder is meant.
_BRANCHES = (
    *("", "backbone.", "encoder_q.", "encoder_q.0.", "base_encoder."),
    *("teacher.backbone.", "student.backbone.", "encoder.", "model."),
)
_WRAPPERS = ("", "module.", "_orig_mod.")  # of DistributedDataParallel and torch.compile
_PREFIXES = tuple(wrapper + branch for wrapper in _WRAPPERS for branch in _BRANCHES)
# A batch norm's counter of steps: files from before PyTorch 0.4.1 lack it, and with a momentum it is never read.
_COUNTER = "num_batches_tracked"


class Record:
    """Stands for an object in a checkpoint that is not needed, and is not made."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        """Drop the object's attributes."""


class _Items:
    """Makes an ordinary dictionary in place of another class's, since it may hold the weights."""

    def __new__(cls, *args: Any) -> OrderedDict[Any, Any]:  # type: ignore[misc]
        return OrderedDict(next((arg for arg in args if isinstance(arg, Mapping)), {}))


# What training scripts keep beside the weights: settings, paths, dates, and numbers of NumPy. A file that names any of
# these is read, without the code behind it; `getattr` is how MMEngine's history of losses names its methods.
_RECORDS = (
    *(f"builtins.{name}" for name in ("dict", "float", "frozenset", "getattr", "int", "list", "range", "slice", "str")),
    *(f"datetime.{name}" for name in ("date", "datetime", "timedelta", "timezone")),
    *("types.SimpleNamespace", "typing.Any", "uuid.UUID", "mmengine.logging.history_buffer.HistoryBuffer"),
    *(
        f"{module}.{prefix}{system}Path"
        for module in ("pathlib", "pathlib._local")
        for prefix in ("", "Pure")
        for system in ("Posix", "Windows")
    ),
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
    *("numpy.dtype", "numpy.ndarray", "mmengine.config.config.Config", "mmcv.utils.config.Config"),
    *(f"omegaconf.{name}" for name in ("base.ContainerMetadata", "base.Metadata", "nodes.AnyNode")),
    *("omegaconf.dictconfig.DictConfig", "omegaconf.listconfig.ListConfig"),
)
_DICTIONARIES = (
    *("collections.defaultdict", "addict.addict.Dict", "easydict.EasyDict", "yacs.config.CfgNode"),
    *("mmengine.config.config.ConfigDict", "mmcv.utils.config.ConfigDict"),
    *("fvcore.common.config.CfgNode", "detectron2.config.config.CfgNode"),
    *("pytorch_lightning.utilities.parsing.AttributeDict", "lightning.fabric.utilities.data.AttributeDict"),
)
_SAFE_GLOBALS = [
    *_DATA_CLASSES,
    *((Record, name) for name in _RECORDS),
    *((_Items, name) for name in _DICTIONARIES),
]
_NAMES_SHOWN = 4
_CONVERT = (
    "if you trust the file, save its weights alone with the program that wrote it, "
    "as `torch.save(model.state_dict(), FILE)`"
)


def read_checkpoint(path: str | Path, map_location: Any = "cpu") -> dict[str, Any]:
    """Read a PyTorch checkpoint or a safetensors file.

    Only tensors and plain values are unpickled; a `Record` stands for each object of some well-known other types.

    Args:
        map_location: as in `torch.load`; safetensors are read to the CPU.

    Raises:
        UserError: no such file, it cannot be read or is damaged, or it holds other objects.
    """
    is_safetensors = str(path).endswith(".safetensors")
    try:
        if is_safetensors:
            return safetensors.torch.load_file(path)
        with torch.serialization.safe_globals(_SAFE_GLOBALS):
            checkpoint = torch.load(path, map_location=map_location, weights_only=True)
    except FileNotFoundError as error:
        hint = "; nothing is downloaded here: get the file and give its path" if "://" in str(path) else ""
        raise UserError(f"{path}: no such checkpoint{hint}") from error
    except pickle.UnpicklingError as error:  # PyTorch's message advises to run the file's code: do not repeat it
        names = _other_globals(path)
        more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
        what = f"holds {', '.join(names[:_NAMES_SHOWN])}{more}" if names else "is not a checkpoint of plain values"
        raise UserError(f"{path}: {what}; only tensors and plain values are read, never code: {_CONVERT}") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    except Exception as error:  # the unpickler raises nearly any exception on a damaged or different file
        if "TorchScript" in str(error):
            raise UserError(f"{path}: is a TorchScript program, not a checkpoint: {_CONVERT}") from error
        kind = "safetensors file" if is_safetensors else "PyTorch checkpoint"
        raise UserError(f"{path}: damaged or not a {kind}") from error
    if not isinstance(checkpoint, dict):
        raise UserError(f"{path}: holds {type(checkpoint).__name__}, not a checkpoint")
    return checkpoint


def _other_globals(path: str | Path) -> list[str]:
    """The classes and functions in a checkpoint that are not unpickled; empty where that cannot be determined."""
    try:
        with torch.serialization.safe_globals(_SAFE_GLOBALS):
            return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # a file in another format than PyTorch's since 1.6
        return []


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """Read the tensors of a checkpoint by name, wherever it keeps its state dict.

    Raises:
        UserError: as `read_checkpoint`, or there are none.
    """
    return tensors_in(read_checkpoint(path), path)


def tensors_in(checkpoint: Mapping[str, Any], path: str | Path) -> dict[str, Tensor]:
    """As `read_tensors`, for the content of a checkpoint; `path` is for the message."""
    state_dict = state_dict_in(checkpoint)
    tensors = {name: value for name, value in state_dict.items() if isinstance(name, str) and isinstance(value, Tensor)}
    if not tensors:
        raise UserError(f"{path}: holds no weights")
    return tensors


def state_dict_in(checkpoint: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the state dict that a checkpoint nests under known keys, or the checkpoint itself if it has none of them.

    Every reader of checkpoints uses this, so that each accepts what the others do.
    """
    for _ in range(_MAX_NESTING):
        key = next((key for key in _NESTINGS if isinstance(checkpoint.get(key), Mapping)), None)
        if key is None:
            break
        checkpoint = checkpoint[key]
    return checkpoint


def strip_prefix(tensors: Tensors, expected: Tensors) -> dict[str, Tensor]:
    """Return the tensors under the known prefix that precedes most of the expected names, without that prefix."""
    prefix = max(_PREFIXES, key=lambda prefix: sum(prefix + name in tensors for name in expected))
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def rename_by_position(tensors: Tensors, expected: Tensors) -> dict[str, Tensor]:
    """Give the first tensors the expected names if they have the same shapes in the same order; else return none."""
    values = list(tensors.values())[: len(expected)]
    if [value.shape for value in values] != [value.shape for value in expected.values()]:
        return {}
    return dict(zip(expected, values, strict=True))


@dataclass(frozen=True)
class TensorMatch:
    """How a checkpoint's tensors match a network's by name and shape.

    Attributes:
        found: the network's tensors that the checkpoint holds.
        left: names of the checkpoint's other tensors, and why each is left.
        missing: names of the network's other tensors.
        class_branch: matches names of tensors whose shape follows the number of classes; None: there are none.
        adapted: names of found tensors whose rows were made to fit the network's, and how.
    """

    found: dict[str, Tensor]
    left: dict[str, str]
    missing: tuple[str, ...]
    class_branch: re.Pattern[str] | None = None
    adapted: dict[str, str] = field(default_factory=dict)

    def lacking(self, parts: Sequence[str] = ("",)) -> list[str]:
        """Names of missing tensors, except class branches and batch norms' counters.

        Args:
            parts: leading names of the network's tensors; by default, of all.
        """
        names = [name for name in self.missing if name.startswith(tuple(parts)) and not name.endswith(_COUNTER)]
        return [name for name in names if not (self.class_branch and self.class_branch.search(name))]

    def why(self, name: str) -> str:
        """Why a tensor is missing."""
        return self.left.get(name, "not in the checkpoint")

    def require(self, parts: Sequence[str], source: str | Path, hint: str) -> None:
        """Check that no tensor of these parts is `lacking`.

        Args:
            parts: leading names of the network's tensors.
            source: the checkpoint, as the user knows it.
            hint: what to do otherwise.

        Raises:
            UserError: some are, naming the first and the reason; or a tensor that was found holds NaN or infinity.
        """
        self._require_finite(source)
        names = self.lacking(parts)
        if names:
            more = ", ..." if len(names) > 1 else ""
            raise UserError(
                f"{source}: {len(names)} tensors that the model needs from it cannot be taken: "
                f"{names[0]} ({self.why(names[0])}){more}; {hint}"
            )

    def require_all(self, source: str | Path) -> None:
        """Check that checkpoint and network have the same tensors.

        Raises:
            UserError: some differ, naming the first and the reason; or a tensor holds NaN or infinity.
        """
        self._require_finite(source)
        differing = list(dict.fromkeys((*self.left, *self.missing)))
        if differing:
            name = differing[0]
            raise UserError(
                f"{source}: not a checkpoint of this model; {len(differing)} tensors differ: {name} ({self.why(name)})"
            )

    def _require_finite(self, source: str | Path) -> None:
        """Refuse weights of a training that diverged: whatever is computed with them is NaN, and never says why."""
        names = [name for name, tensor in self.found.items() if not bool(torch.isfinite(tensor).all())]
        if names:
            raise UserError(
                f"{source}: {len(names)} of its {len(self.found)} tensors hold NaN or infinity, the first "
                f"{names[0]}: its training diverged or the file is damaged; use another checkpoint"
            )

    def as_dict(self) -> dict[str, Any]:
        """Return a JSON-serialisable dict of all names: `taken`, `adapted` (how), `left` (why) and `missing`."""
        return {
            "taken": sorted(self.found),
            "adapted": dict(sorted(self.adapted.items())),
            "left": dict(sorted(self.left.items())),
            "missing": sorted(self.missing),
        }

    def table(self) -> str:
        """Return a table of how many tensors each part of the network took, left and initialised at random, and why."""
        counts = [Counter(map(_part, names)) for names in (self.found, self.left, self.missing)]
        rows = [(part, *(str(count[part] or "-") for count in counts)) for part in sorted(set().union(*counts))]
        rows = [("part", "taken", "left", "random init"), *rows]
        width = max(len(row[0]) for row in rows)
        lines = ["  ".join([row[0].ljust(width), *(cell.rjust(11) for cell in row[1:])]) for row in rows]
        for outcome, names in (("adapted", self.adapted), ("left", self.left)):
            reasons = Counter((_part(name), reason) for name, reason in names.items())
            lines += [f"{outcome} in {part}: {reason} ({count})" for (part, reason), count in sorted(reasons.items())]
        return "\n".join(lines)


def _part(name: str) -> str:
    """Return the part of the network that a tensor is in: two levels of its name for heads, one for the rest."""
    pieces = name.split(".")
    return ".".join(pieces[:2]) if pieces[0].endswith("_head") and len(pieces) > 2 else pieces[0]


def match_tensors(tensors: Tensors, expected: Tensors, class_branch: re.Pattern[str] | None = None) -> TensorMatch:
    """Match a checkpoint's tensors with a network's by name and shape.

    Args:
        tensors: of the checkpoint.
        expected: the network's state dict, on any device, `meta` too.
        class_branch: matches names of tensors whose shape follows the number of classes: they may be missing.
    """
    found: dict[str, Tensor] = {}
    left: dict[str, str] = {}
    for name, tensor in tensors.items():
        if name not in expected:
            left[name] = "the model has no such tensor"
        elif tensor.shape != expected[name].shape:
            kind = "class branch: " if class_branch and class_branch.search(name) else ""
            left[name] = f"{kind}shape {tuple(tensor.shape)}, the model's is {tuple(expected[name].shape)}"
        else:
            found[name] = tensor
    return TensorMatch(found, left, tuple(name for name in expected if name not in found), class_branch)
