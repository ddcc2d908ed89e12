"""Whether the labelled objects of a run are in one piece: then so are the masks that it finds."""

from contextlib import suppress
from typing import Any

import numpy as np
from mmengine.config import Config

from stage1_proposals.common.masks import to_mask
from stage2_training.config.annotation_files import UNREADABLE, read_labels
from stage2_training.config.objects import get_setting
from stage2_training.models.one_piece import count_pieces
from stage2_training.saliency_prompt.detectors import detector_traits

# Text and cells are in one piece, without exception. Of COCO's objects, which others hide in part, 85 % are.
LEAST_SHARE = 0.95
SAMPLE = 1000  # objects that are looked at, spread evenly


def fit_to_pieces(config: Config) -> None:
    """Let masks keep their largest connected part alone if the labelled objects are in one piece, in place.

    Labels that cannot be read change nothing: `check_annotations` reports them.
    """
    setting = detector_traits(config.model.type).one_piece
    if setting is not None and share_in_one_piece(config.train_dataloader.dataset) >= LEAST_SHARE:
        config.merge_from_dict({f"model.{setting}": True})


def share_in_one_piece(dataset: Any) -> float:
    """The share of the training labels' objects that are one connected piece; 0 if they cannot be read."""
    with suppress(*UNREADABLE):
        images, objects = read_labels(dataset)
        sizes = {each["id"]: (each["height"], each["width"]) for each in images}
        places = np.unique(np.linspace(0, len(objects) - 1, min(SAMPLE, len(objects))).round().astype(int))
        chosen = [objects[place] for place in places]
        whole = [_is_one_piece(each["segmentation"], sizes[each["image_id"]]) for each in chosen]
        return sum(whole) / len(whole) if whole else 0.0
    return 0.0


def _is_one_piece(segmentation: Any, size: tuple[int, int]) -> bool:
    if isinstance(segmentation, list) and len(segmentation) == 1:  # a polygon, which need not be drawn
        return True
    return count_pieces(to_mask(segmentation, size)) == 1


def describe_pieces(config: Config) -> str | None:
    """One line on masks in one piece; None for a run that keeps all parts of its masks."""
    if not finds_one_piece(config.model):
        return None
    setting = detector_traits(config.model.type).one_piece
    return (
        f"The labelled objects are in one piece: of each mask, the largest part is kept; "
        f"--cfg-options model.{setting}=False keeps all"
    )


def finds_one_piece(model: Any) -> bool:
    """Whether the masks of a config's model keep their largest part alone."""
    setting = detector_traits(model.type).one_piece
    return setting is not None and bool(get_setting(model, setting))
