"""The settings of Saliency Prompt, the same for every detector. Imports no torch: commands show them without it."""

from dataclasses import fields
from typing import Annotated, Any, Literal, Self, get_args, get_origin

from pydantic import ConfigDict, Field, ModelWrapValidatorHandler, ValidationError, model_validator
from pydantic.dataclasses import dataclass

from stage1_proposals.common.errors import UserError

Probability = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True, config=ConfigDict(extra="forbid", strict=True))
class SaliencyPromptSettings:
    """How prompts are made and matched, and how strongly the kernels are supervised.

    Args:
        feature_dim: D, length of the seed features.
        matching: which prompt a kernel gets: `cosine` (Eq. 6-8), `sequential`, `random`, or `none`; `mean`, a control,
            gives every kernel the mean feature of its image.
        pool_from: what prompts are means of: `pyramid`, an FPN level (Eq. 5), or `query_map`, the map that the first
            masks or boxes are read from by multiplying it with the queries.
        center: subtract the mean of that map over the image, so that prompts say what sets an object apart.
        match_on: what `cosine` compares K-Net's prompts with: the learned kernels (`initial`, the paper's text)
            or the per-image ones (`object`).
        add_to: which of K-Net's kernels get prompts: the learned ones, before they make their first masks
            (`initial`, Eq. 8), or the per-image ones that enter the first update stage (`object`).
        rescale: scale each prompt to the length of the kernel that it was compared with; in Eq. 8 it keeps its own.
        level: FPN level of `pool_from="pyramid"`; -1 is the coarsest.
        detach: stop the gradient between prompts and the map that they are means of.
        drop_prob: probability that a kernel gets no prompt, in training.
        groups: let a query attend only to those that have the same prompt (UP-DETR); for models whose queries attend
            to each other by MMCV's attention.
        kernel_loss: `cosine`, the distance of a kernel from its target (Eq. 9), or `contrast`, the cross-entropy of
            its target among all targets of the image (InfoNCE); `reconstruct` and `regress` map kernels to features
            instead of features to kernels: the cosine distance (UP-DETR) or the L1 distance (DETReg).
        kernel_target: which feature of its proposal a kernel is supervised with: the shard's (`seed`), or the one that
            its prompt is made of (`prompt`).
        kernel_loss_weight: weight of the kernel supervision.

    Raises:
        UserError: an unknown setting, or a value of another type or out of range.
    """

    feature_dim: Annotated[int, Field(gt=0)]
    matching: Literal["cosine", "sequential", "random", "mean", "none"] = "cosine"
    pool_from: Literal["pyramid", "query_map"] = "pyramid"
    center: bool = False
    match_on: Literal["initial", "object"] = "initial"
    add_to: Literal["initial", "object"] = "initial"
    rescale: bool = False
    level: int = -1
    detach: bool = True
    drop_prob: Probability = 0.1
    groups: bool = False
    kernel_loss: Literal["cosine", "contrast", "reconstruct", "regress"] = "cosine"
    kernel_target: Literal["seed", "prompt"] = "seed"
    kernel_loss_weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0

    @model_validator(mode="wrap")
    @classmethod
    def _raise_user_error(cls, values: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return handler(values)
        except ValidationError as error:
            raise UserError(_one_line(error, cls)) from error

    def check_level(self, levels: int) -> None:
        """Check `level` against the number of a detector's FPN levels.

        Raises:
            UserError: there is no such level.
        """
        if not -levels <= self.level < levels:
            raise UserError(f"saliency_prompt.level {self.level}: use one from {-levels} to {levels - 1}")


def setting_choices() -> list[str]:
    """Each setting but `feature_dim` as `name=default`, or as `name=default|other|...` where it has choices."""
    known = (field for field in fields(SaliencyPromptSettings) if field.name != "feature_dim")
    choices = {field.name: get_args(field.type) if get_origin(field.type) is Literal else () for field in known}
    defaults = SaliencyPromptSettings(feature_dim=1)
    return [f"{name}={'|'.join(values) or getattr(defaults, name)}" for name, values in choices.items()]


def _one_line(error: ValidationError, settings: type) -> str:
    """The first of pydantic's complaints, naming the setting and its value."""
    complaint, names = error.errors()[0], [field.name for field in fields(settings)]
    location = complaint["loc"][0]  # the position of a positional argument
    name = f"saliency_prompt.{names[location] if isinstance(location, int) else location}"
    if complaint["type"] == "missing":
        return f"{name}: is missing"
    if complaint["type"] == "unexpected_keyword_argument":
        return f"{name}: no such setting; use one of {', '.join(names)}"
    return f"{name} {complaint['input']!r}: {complaint['msg'].removeprefix('Input ')}"
