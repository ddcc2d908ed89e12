"""Whether the labelled objects of a run are in one piece: then so are the masks that it finds."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from mmengine.config import Config, ConfigDict

from stage1_proposals.common.masks import to_mask
from stage2_training.config.annotation_files import UNREADABLE, read_labels
from stage2_training.config.objects import get_setting
from stage2_training.models.one_piece import count_pieces
from stage2_training.saliency_prompt.detectors import detector_traits

LEAST_SHARE = 0.95  # of the objects of each class. Of text and nuclei all are in one piece, of COCO's objects 85 %
SAMPLE, LEAST_OF_CLASS = 1000, 20  # objects that are looked at: in all, and of a class


def fit_to_pieces(config: Config) -> None:
    """Let masks keep their largest connected part alone if the labelled objects are in one piece, in place.

    Labels that cannot be read change nothing: `check_annotations` reports them. A setting that is there already stays,
    and so do models whose `test_cfg` has no `rescore`, as this project's have: they would not read this one.
    """
    setting = detector_traits(config.model.type).one_piece or ""
    settings = get_setting(config.model, setting.rpartition(".")[0]) or {}
    if "rescore" not in settings or settings.get("one_piece") is not None:
        return
    if share_in_one_piece(config.train_dataloader.dataset) >= LEAST_SHARE:
        config.merge_from_dict({f"model.{setting}": True})


def share_in_one_piece(dataset: Any) -> float:
    """The share of a dataset's labelled objects that are one connected piece, of the class where it is lowest.

    All images of the file count, also where a run draws some: so its seed does not decide. 0 if they cannot be read.
    """
    with suppress(*UNREADABLE):
        images, objects = read_labels(ConfigDict({**dataset, "indices": None}))
        sizes = {each["id"]: (each["height"], each["width"]) for each in images}
        classes: dict[Any, list[Any]] = {}
        for each in objects:
            classes.setdefault(each["category_id"], []).append(each)
        count = max(LEAST_OF_CLASS, SAMPLE // max(len(classes), 1))
        shares = [
            np.mean([_is_one_piece(each["segmentation"], sizes[each["image_id"]]) for each in _spread(of_class, count)])
            for of_class in classes.values()
        ]
        return float(min(shares, default=0.0))
    return 0.0


def _spread(items: Sequence[Any], count: int) -> list[Any]:
    """`count` of the items or, if there are fewer, all, evenly spread."""
    return [items[place] for place in np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int)]


def _is_one_piece(segmentation: Any, size: tuple[int, int]) -> bool:
    # Polygons are drawn, too: converters join the parts of an object by lines without width.
    return count_pieces(to_mask(segmentation, size).T) == 1  # pycocotools' columns are contiguous


def describe_pieces(config: Config) -> str | None:
    """One line on masks in one piece; None for a run that keeps all parts of its masks."""
    if not finds_one_piece(config.model):
        return None
    setting = detector_traits(config.model.type).one_piece
    return (
        f"Of each mask that is found, only the largest part is kept, as labelled objects are in one piece; "
        f"--cfg-options model.{setting}=False keeps all"
    )


def finds_one_piece(model: Any) -> bool:
    """Whether the masks of a config's model keep their largest part alone."""
    setting = detector_traits(model.type).one_piece
    return setting is not None and bool(get_setting(model, setting))
