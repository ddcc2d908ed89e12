import importlib.util
from pathlib import Path

import cv2
import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.structures import DetDataSample

from stage2_training.config.compose import finetuning_config
from stage2_training.config.overrides import Overrides
from stage2_training.knet.postprocess import mask_boxes
from stage2_training.models.one_piece import count_pieces, largest_pieces
from stage2_training.runs.train import build_model

EXAMPLE = Path(__file__).parents[3] / "docs" / "onnx_example.py"


def mask(*rows: str) -> torch.Tensor:
    return torch.tensor([[character == "x" for character in row] for row in rows])


def test_the_largest_part_is_kept() -> None:
    two = mask("xx....", "xx..x.", "....xx", "...x..")  # the right one over corners
    masks = torch.stack([two, torch.zeros(4, 6, dtype=torch.bool), mask("......", ".xxx..", "......", "......")])
    before = masks.clone()
    kept = largest_pieces(masks)
    masks_kept = [mask("xx....", "xx....", "......", "......"), masks[1], masks[2]]
    assert torch.equal(kept, torch.stack(masks_kept))
    assert torch.equal(masks, before)
    assert largest_pieces(masks[:0]).shape == (0, 4, 6)
    assert [count_pieces(each.numpy().astype(np.uint8)) for each in masks] == [2, 0, 1]


@given(hnp.arrays(bool, st.tuples(st.just(1), st.integers(1, 9), st.integers(1, 9))))
@settings(deadline=None, max_examples=100)
def test_it_is_one_of_the_mask_s_own_parts(masks: np.ndarray) -> None:
    """And the example for ONNX keeps one as large."""
    spec = importlib.util.spec_from_file_location("onnx_example", EXAMPLE)
    assert spec
    assert spec.loader
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    _, pieces = cv2.connectedComponents(masks[0].astype(np.uint8), connectivity=8)
    sizes = np.bincount(pieces.ravel())[1:]
    for kept in (largest_pieces(torch.from_numpy(masks))[0].numpy(), example.largest_piece(masks[0])):
        numbers = np.unique(pieces[kept])
        assert len(numbers) == (1 if masks.any() else 0)
        assert kept.sum() == (sizes.max() if len(sizes) else 0)
        assert not (kept & ~masks[0]).any()


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("knet_lite0", "one_piece"),
        ("queryinst_lite0", "rcnn.one_piece"),
        ("mask2former_lite0", "one_piece"),
        ("maskformer_lite0", "one_piece"),
    ],
)
def test_masks_of_query_models_keep_their_largest_part(name: str, setting: str) -> None:
    """Scores stay; boxes are those of what is kept, but for QueryInst's, which are its own."""
    found = {}
    for one_piece in (True, False):
        overrides = Overrides(cfg_options=[f"model.test_cfg.{setting}={one_piece}"])
        torch.manual_seed(0)
        model = build_model(finetuning_config(name, "demo", "finetune_demo", overrides=overrides)).eval()
        shape = (64, 96)
        known = {"img_shape": shape, "ori_shape": shape, "batch_input_shape": shape, "scale_factor": (1.0, 1.0)}
        images = torch.randn(1, 3, *shape, generator=torch.Generator().manual_seed(0))
        found[one_piece] = model.predict(images, [DetDataSample(metainfo=known)])[0].pred_instances
    kept, all_parts = found[True], found[False]
    assert torch.equal(kept.scores, all_parts.scores)
    assert torch.equal(kept.masks, largest_pieces(all_parts.masks))
    assert (kept.masks != all_parts.masks).any()
    boxes = all_parts.bboxes if name == "queryinst_lite0" else mask_boxes(kept.masks)
    torch.testing.assert_close(kept.bboxes, boxes)
