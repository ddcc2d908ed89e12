"""From a checkpoint to a model's initial weights, saying what was taken, what was left, and why."""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from stage1_proposals.common.errors import UserError

Weights = Mapping[str, Tensor]

# What pre-training is for, by detector type: the transfer is an error when any tensor under these is not taken.
ESSENTIAL: dict[str, tuple[str, ...]] = {
    "KNet": ("rpn_head.init_kernels", "rpn_head.localization_fpn", "roi_head.mask_head"),
    "QueryInst": ("neck", "rpn_head", "roi_head"),
    "Mask2Former": ("panoptic_head",),
    "MaskFormer": ("panoptic_head",),
    "MaskRCNN": ("neck", "rpn_head", "roi_head"),
    "SOLOv2": ("neck", "mask_head"),
}

# A batch norm's counter: files made before it existed lack it, and with a momentum it is never read.
COUNTER = ".num_batches_tracked"

# Layers whose shape follows the number of classes, so that they may stay at their own initialisation.
CLASS_BRANCH = re.compile(r"(^|\.)(fc_cls|conv_seg|conv_cls|cls_embed|conv_logits)\.|^roi_head\.bbox_head\.fc_reg\.")


@dataclass(frozen=True)
class Transfer:
    """The outcome of comparing a checkpoint with a model.

    Attributes:
        taken: the checkpoint's tensors that the model takes, by their names in the model.
        left: names of the checkpoint's other tensors, and why each is left.
        missing: names of the model's other tensors; they keep their own initialisation.
    """

    taken: dict[str, Tensor]
    left: dict[str, str]
    missing: tuple[str, ...]

    def require(self, parts: Sequence[str], source: str | Path, hint: str) -> None:
        """Raise UserError when a tensor of these parts is missing, class branches and counters of steps excepted.

        Args:
            parts: leading names of the model's tensors.
            source: the checkpoint, as the user knows it.
            hint: what to do about it.
        """
        needed = [name for name in self.missing if name.startswith(tuple(parts)) and not name.endswith(COUNTER)]
        lost = [name for name in needed if not CLASS_BRANCH.search(name)]
        if lost:
            reason = self.left.get(lost[0], "not in the checkpoint")
            raise UserError(
                f"{source}: {len(lost)} tensors that the model needs from it cannot be taken: {lost[0]} ({reason})"
                f"{', ...' if len(lost) > 1 else ''}; {hint}"
            )

    def as_json(self) -> dict[str, Any]:
        return {"taken": sorted(self.taken), "left": dict(sorted(self.left.items())), "missing": sorted(self.missing)}

    def require_all(self, source: str | Path) -> None:
        """Raise UserError when the checkpoint and the model differ in any tensor's name or shape."""
        differing = {**self.left, **{name: "not in the checkpoint" for name in self.missing if name not in self.left}}
        if differing:
            name, reason = next(iter(differing.items()))
            raise UserError(
                f"{source}: not a checkpoint of this model; {len(differing)} tensors differ: {name} ({reason})"
            )

    def write(self, path: Path, source: str | Path) -> None:
        """Write every name and reason as JSON, and `report` beside it under the same name with `.txt`."""
        path.write_text(json.dumps(self.as_json(), indent=2) + "\n")
        path.with_suffix(".txt").write_text(self.report(source) + "\n")

    def report(self, source: str | Path) -> str:
        """Where the weights came from, and `table`, to be read by a person."""
        return f"Initial weights: {source}\n{self.table()}"

    def table(self) -> str:
        """A short table: per part of the network, how many tensors were taken, left and kept at initialisation."""
        counts = [Counter(map(_part, names)) for names in (self.taken, self.left, self.missing)]
        rows = [(part, *(str(count[part] or "-") for count in counts)) for part in sorted(set().union(*counts))]
        rows = [("part", "taken", "left", "own init"), *rows]
        width = max(len(row[0]) for row in rows)
        lines = ["  ".join([row[0].ljust(width), *(cell.rjust(8) for cell in row[1:])]) for row in rows]
        reasons = Counter((_part(name), reason) for name, reason in self.left.items())
        lines += [f"left in {part}: {reason} ({count})" for (part, reason), count in sorted(reasons.items())]
        return "\n".join(lines)


def _part(name: str) -> str:
    """The part of the network a tensor is reported under: two levels for heads, one for the rest."""
    pieces = name.split(".")
    return ".".join(pieces[:2]) if pieces[0].endswith("_head") and len(pieces) > 2 else pieces[0]


def plan_transfer(source: Weights, target: Weights) -> Transfer:
    """Match a checkpoint's tensors with a model's by name and shape.

    Args:
        source: the checkpoint's state dict.
        target: the model's state dict.
    """
    taken: dict[str, Tensor] = {}
    left: dict[str, str] = {}
    for name, tensor in source.items():
        if name not in target:
            left[name] = "the model has no such tensor"
        elif tensor.shape != target[name].shape:
            kind = "class branch: " if CLASS_BRANCH.search(name) else ""
            left[name] = f"{kind}shape {tuple(tensor.shape)}, the model's is {tuple(target[name].shape)}"
        else:
            taken[name] = tensor
    return Transfer(taken, left, tuple(name for name in target if name not in taken))


def name_backbone(weights: Weights, target: Weights) -> dict[str, Tensor]:
    """A bare backbone's state dict under the names its tensors have inside a detector.

    The detector keeps the backbone's own names behind a prefix: `backbone.`, or more when a wrapper holds it.
    """
    first = next(iter(weights))
    prefixes = [name.removesuffix(first) for name in target if name.startswith("backbone.") and name.endswith(first)]
    prefix = min(prefixes, key=len, default="backbone.")
    return {prefix + name: tensor for name, tensor in weights.items()}
