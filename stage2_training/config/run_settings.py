"""What a command line changes in a composed config. Imports no MMEngine: commands show these settings without it."""

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, field_validator

from stage1_proposals.common.errors import UserError

DEFAULT_MODEL = "knet_lite0"
LOWEST_SCORE = 0.2  # of a detection that is worth showing (docs/predicting.md)
SMALLEST_TILE = 32
EPOCHS = 48  # of fine-tuning on a custom dataset that is not small, as on a tenth of COCO


class Overrides(BaseModel):
    """What a command line changes in a composed config; None leaves a setting as the base configs have it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: PositiveInt | None = Field(default=None, description="Length of training; milestones move with it.")
    total_batch: PositiveInt | None = Field(default=None, description="Images per optimizer step, over all processes.")
    batch_size: PositiveInt | None = Field(
        default=None, description="Images per process and forward pass, as memory allows."
    )
    image_size: PositiveInt | None = Field(
        default=None,
        description="Longer side of images, or of tiles, after resizing, in pixels. Default: by schedule and objects.",
    )
    tiles: str | None = Field(
        default=None,
        description="See images in tiles: off, auto (by the objects) or their side in pixels. Default: auto for labels "
        "of your own and proposals, in evaluation as trained.",
    )
    queries: PositiveInt | None = Field(
        default=None, description="Queries (kernels) of the model. Default: by the model and the objects of an image."
    )
    auto_scale_lr: bool = Field(
        default=False, description="Scale the learning rate with the total batch, from the schedule's base batch size."
    )
    amp: bool = Field(default=False, description="Mixed precision: forward passes in bfloat16.")
    ema: bool = Field(
        default=False, description="Average the weights over the steps; evaluate and hand on the averages."
    )
    workers: NonNegativeInt | None = Field(
        default=None, description="Data-loading processes per data loader; 0: the main process loads."
    )
    seed: NonNegativeInt | None = Field(default=None, description="Seed of everything random. Default: 0.")
    train_images: PositiveInt | None = Field(
        default=None, description="Train on so many images with objects, drawn by the seed. Default: on all."
    )
    patience: PositiveInt | None = Field(
        default=None, description="End training after so many evaluations without a better AP. Default: never."
    )
    track: Literal["wandb", "mlflow"] | None = Field(
        default=None, description="Send losses and scores to Weights & Biases, or MLflow. Default: to none."
    )
    data_root: str | None = Field(default=None, description="Folder of the dataset. Default: what its config says.")
    cfg_options: Sequence[str] = Field(
        default=(),
        description="Change any setting, after all others, as MMDetection's --cfg-options.",
        json_schema_extra={"metavar": "KEY=VALUE"},
    )

    @field_validator("tiles")
    @classmethod
    def _check_tiles(cls, value: str | None) -> str | None:
        tile_side(value)
        return value


def tile_side(text: str | None) -> int | None:
    """What `--tiles` says: the side of tiles in pixels, 0 for `off`; None for `auto` and where it is not given.

    Raises:
        UserError: it says something else.
    """
    if text is None or text == "auto":
        return None
    if text == "off":
        return 0
    if text.isascii() and text.isdigit() and int(text) >= SMALLEST_TILE:
        return int(text)
    raise UserError(f"--tiles {text!r}: use auto, off or the side of a tile, {SMALLEST_TILE} pixels or more")
