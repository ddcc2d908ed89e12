"""SOLOv2 as FreeSOLO trains it: which instance a grid cell is for, colours of masks, embeddings of cells."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from mmdet.models.dense_heads import SOLOV2Head
from mmdet.models.detectors import BaseDetector
from mmengine.optim import OptimWrapper

from stage1_proposals.common.errors import UserError
from stage2_training.saliency_prompt.weak_mask_loss import WeakMaskLoss, similar_neighbors

FREESOLO = {"matching": "none", "kernel_loss": "reconstruct", "kernel_loss_weight": 4.0}


@pytest.fixture
def build_solo(build_adapted: Callable) -> Callable[..., BaseDetector]:
    """(settings) -> a miniature FreeSOLO."""
    return lambda **settings: build_adapted("solov2", FREESOLO | settings)


def losses_of(model: BaseDetector, batch: Any) -> dict[str, Any]:
    return model(*batch, mode="loss")


def test_all_that_is_added_is_the_embedding_head(build_solo: Callable, build_adapted: Callable) -> None:
    model, plain = build_solo(), build_adapted("solov2")
    report = plain.load_state_dict(model.state_dict(), strict=False)
    assert not report.missing_keys
    assert {name.split(".")[0] for name in report.unexpected_keys} == {"kernel_supervision"}


def test_classes_and_masks_are_those_of_solov2(
    build_solo: Callable, build_adapted: Callable, make_batch: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With SOLOv2's own loss on the first channel of the targets, its losses are SOLOv2's."""
    model, plain, seen = build_solo(), build_adapted("solov2"), []
    plain.load_state_dict(model.state_dict(), strict=False)

    def dice(loss: WeakMaskLoss, pred: torch.Tensor, target: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        seen.append(target)
        return plain.mask_head.loss_mask(pred, target[:, 0], **kwargs)

    monkeypatch.setattr(WeakMaskLoss, "forward", dice)
    batch = make_batch([3, 0, 2])
    losses = losses_of(model, batch)
    expected = losses_of(plain, make_batch([3, 0, 2]))
    assert losses.keys() - expected.keys() == {"s0.loss_kernel"}
    assert all(torch.equal(losses[name], expected[name]) for name in expected)
    # Targets are grouped by level, then by image: of each level, the first is of image 0.
    mean, std = model.data_preprocessor.mean, model.data_preprocessor.std
    similar = [similar_neighbors(image * std + mean, (60, 90)) for image in batch[0]]
    assert all(target.shape[1:] == (9, 16, 24) for target in seen)
    for target in seen:
        of_image = [[torch.equal(row[1:], own.to(row.dtype)) for own in similar].index(True) for row in target]
        assert of_image == sorted(of_image)
        assert set(of_image) <= {0, 2}
    assert len(seen) > 1


def test_a_cell_is_for_the_instance_whose_class_and_mask_it_has(
    build_solo: Callable, make_batch: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each instance has a class of its own, so MMDetection's targets tell which one a cell is for."""
    model, (images, samples) = build_solo(), make_batch([3, 0, 2])
    for sample in samples:
        sample.gt_instances.labels = torch.arange(len(sample.gt_instances))
    pairs, kernel_losses = [], type(model).kernel_losses
    monkeypatch.setattr(type(model), "kernel_losses", lambda *args: pairs.extend(args[1:3]) or kernel_losses(*args))
    losses = losses_of(model, (images, samples))
    (cells,), (assignment,) = pairs
    targets = [SOLOV2Head._get_targets_single(model.mask_head, s.gt_instances, (16, 24)) for s in samples]
    labels = [torch.cat([level.flatten() for level in of_image[1]]) for of_image in targets]
    rows = assignment.image, assignment.kernel, assignment.instance
    found = list(zip(*(row.tolist() for row in rows), strict=True))
    classes = model.mask_head.num_classes
    expected = [
        (image, cell, int(label))
        for image, of_image in enumerate(labels)
        for cell, label in enumerate(of_image)
        if label != classes
    ]
    assert found == expected
    assert {(image, instance) for image, _, instance in found} == {(0, 0), (0, 1), (0, 2), (2, 0), (2, 1)}
    head, total = model.kernel_supervision, 0.0
    for image, cell, instance in found:
        made, target = head.layers(cells[image, cell]), samples[image].gt_instances.seed_features[instance]
        total += 1 - torch.dot(made, target).item() / math.sqrt(made.square().sum() * target.square().sum())
    assert losses["s0.loss_kernel"].item() == pytest.approx(4 * total / len(found), rel=1e-4)


def test_cells_are_what_classes_are_predicted_from(build_solo: Callable, make_batch: Callable) -> None:
    model = build_solo()
    losses_of(model, make_batch([2]))["s0.loss_kernel"].backward()
    assert all(layer.conv.weight.grad.abs().sum() > 0 for layer in model.mask_head.cls_convs)
    assert all(layer.conv.weight.grad is None for layer in model.mask_head.kernel_convs)


@pytest.mark.parametrize("counts", [[0, 0], [9, 1, 0], [40, 2]])
def test_a_training_step(build_solo: Callable, make_batch: Callable, counts: list[int]) -> None:
    model, (images, samples) = build_solo(), make_batch(counts)
    before = {name: value.clone() for name, value in model.named_parameters()}
    data = {"inputs": [(image.sigmoid() * 255).byte() for image in images], "data_samples": samples}
    logged = model.train_step(data, OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1)))
    assert all(math.isfinite(value) for value in logged.values())
    moved = {name for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    assert any(name.startswith("mask_head.conv_cls") for name in moved)
    assert any(name.startswith("kernel_supervision") for name in moved) == (sum(counts) > 0)
    assert model.mask_head.observer is None
    assert not model.mask_head.conv_cls._forward_pre_hooks


def test_bfloat16(build_solo: Callable, make_batch: Callable) -> None:
    model = build_solo()
    full = losses_of(model, make_batch([3, 0]))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = losses_of(model, make_batch([3, 0]))
    for name in ("loss_mask", "s0.loss_kernel"):
        assert losses[name].dtype == torch.float32
        assert losses[name].item() == pytest.approx(full[name].item(), rel=0.05)


def test_it_takes_no_prompts(build_solo: Callable) -> None:
    with pytest.raises(UserError, match=r"matching 'cosine': SOLOv2 has no queries that prompts could .* matching=no"):
        build_solo(matching="cosine")
