import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmdet.evaluation import CocoMetric
from pycocotools import mask as coco_mask
from torch.utils._python_dispatch import TorchDispatchMode

STAGE_LOSSES = {f"s{i}.{name}" for i in range(2) for name in ("loss_cls", "loss_mask", "loss_dice")}
LOSSES = {"loss_rpn_mask", "loss_rpn_dice", "loss_rpn_seg"} | STAGE_LOSSES


@pytest.mark.parametrize("counts", [[2], [3, 1], [1, 0, 4], [0], [0, 0], [9, 2]])
def test_a_training_step_at_any_batch_size(build_knet: Callable, make_batch: Callable, counts: list[int]) -> None:
    model = build_knet().train()
    losses = model(*make_batch(counts), mode="loss")
    assert set(losses) == LOSSES
    assert all(loss.ndim == 0 and torch.isfinite(loss) for loss in losses.values())
    sum(losses.values()).backward()
    # In data-parallel training a parameter without a gradient is an error.
    unused = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not unused
    if not any(counts):
        assert all(losses[name] == 0 for name in LOSSES if name.endswith(("_mask", "_dice")))


@pytest.mark.parametrize("counts", [[3, 1], [0, 2], [0, 0]])
def test_a_training_step_on_sampled_points(build_knet: Callable, make_batch: Callable, counts: list[int]) -> None:
    model = build_knet(train_cfg={"mask_points": 48, "cost_points": 48}).train()
    losses = model(*make_batch(counts), mode="loss")
    assert set(losses) == LOSSES
    sum(losses.values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.requires_grad)


class Reads(TorchDispatchMode):
    """Records what would make the CPU wait for a GPU: operations whose result's shape or value it has to know."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        by_mask = name in ("index", "index_put", "index_put_", "_index_put_impl_") and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        )
        if by_mask or name in ("_local_scalar_dense", "is_nonzero", "nonzero", "masked_select", "_unique2", "equal"):
            self.found.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("overrides", [{}, {"type": "SaliencyPromptKNet", "saliency_prompt": {"feature_dim": 5}}])
@pytest.mark.parametrize("points", [None, 48])
def test_the_cpu_waits_for_nothing_but_one_matching_per_stage(
    build_knet: Callable, make_batch: Callable, monkeypatch: pytest.MonkeyPatch, overrides: dict, points: int | None
) -> None:
    with Reads() as reads:
        torch.ones(3)[torch.tensor([True, False, True])].sum().item()
    assert reads.found == ["index", "_local_scalar_dense"]

    model = build_knet(train_cfg={"mask_points": points, "cost_points": points}, **overrides).train()
    images, samples = make_batch([3, 0, 2])
    model(images, samples, mode="loss")  # where the backbone's cells look is measured once
    transfers = []
    to_cpu = torch.Tensor.cpu
    monkeypatch.setattr(torch.Tensor, "cpu", lambda tensor: transfers.append(tensor.shape) or to_cpu(tensor))
    with Reads() as reads:
        total = sum(model(images, samples, mode="loss").values())
        total.backward()
    assert reads.found == []
    # M^0 and the first update stage are matched together, each further stage on its own.
    assert transfers == [(3, 6, 3)] * 2


def test_losses_on_many_points_are_near_those_on_all_pixels(build_knet: Callable, make_batch: Callable) -> None:
    batch = make_batch([3, 2])
    full = build_knet().train()(*batch, mode="loss")
    sampled = build_knet(train_cfg={"cost_points": 20_000}).train()(*batch, mode="loss")
    for name in LOSSES:
        torch.testing.assert_close(sampled[name], full[name], rtol=0.01, atol=0)


def test_losses_of_a_batch_weigh_its_images(build_knet: Callable, make_batch: Callable) -> None:
    """Every loss is a mean over matched kernels, so that two equal images give what one gives."""
    model = build_knet().train()
    images, samples = make_batch([3])
    once = model(images, samples, mode="loss")
    twice = model(images.repeat(2, 1, 1, 1), samples * 2, mode="loss")
    for name in LOSSES:
        torch.testing.assert_close(once[name], twice[name], rtol=1e-4, atol=1e-6)


def test_training_lowers_the_loss(build_knet: Callable, make_batch: Callable) -> None:
    model, batch = build_knet().train(), make_batch([3, 2])
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    history = []
    for _ in range(8):
        loss = sum(model(*batch, mode="loss").values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    assert history[-1] < 0.8 * history[0]


def test_bfloat16_autocast(build_knet: Callable, make_batch: Callable) -> None:
    model = build_knet().train()
    batch = make_batch([3, 0])
    full = model(*batch, mode="loss")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = model(*batch, mode="loss")
    assert all(loss.dtype == torch.float32 for loss in losses.values())
    assert sum(losses.values()).item() == pytest.approx(sum(full.values()).item(), rel=0.1)
    sum(losses.values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize(("rescale", "size"), [(True, (120, 180)), (False, (60, 90))])
def test_predictions(build_knet: Callable, make_batch: Callable, rescale: bool, size: tuple[int, int]) -> None:
    model = build_knet().eval()
    images, samples = make_batch([2, 0])
    with torch.no_grad():
        results = model.predict(images, samples, rescale=rescale)
    assert len(results) == 2
    for sample in results:
        found = sample.pred_instances
        assert found.masks.shape == (10, *size)
        assert found.bboxes.shape == (10, 4)
        assert found.scores.shape == found.labels.shape == (10,)
        assert found.labels.max() < 3


def test_an_image_is_predicted_alike_in_any_batch(build_knet: Callable, make_batch: Callable) -> None:
    model = build_knet().eval()
    images, samples = make_batch([1, 1])
    with torch.no_grad():
        together = model(images, samples, mode="predict")[1].pred_instances
        alone = model(images[1:], make_batch([1, 1])[1][1:], mode="predict")[0].pred_instances
    torch.testing.assert_close(together.scores, alone.scores)
    assert (together.masks != alone.masks).float().mean() < 1e-3


def test_tensor_mode(build_knet: Callable, make_batch: Callable) -> None:
    images, _ = make_batch([0, 0])
    cls_logits, mask_logits = build_knet().eval()(images, mode="tensor")
    assert cls_logits.shape == (2, 6, 3)
    assert mask_logits.shape == (2, 6, 8, 12)


def test_coco_metric_takes_the_predictions(build_knet: Callable, make_batch: Callable, tmp_path: Path) -> None:
    """Ground truth made of the model's own first prediction has an AP above zero."""
    model = build_knet().eval()
    images, samples = make_batch([0])
    samples[0].set_metainfo({"img_id": 1})
    with torch.no_grad():
        results = model(images, samples, mode="predict")
    found = results[0].pred_instances
    best = int(torch.nonzero(found.masks.flatten(1).any(1))[0, 0])
    rle = coco_mask.encode(np.asfortranarray(found.masks[best].numpy().astype(np.uint8)))
    truth = {
        "images": [{"id": 1, "width": 180, "height": 120, "file_name": "a.jpg"}],
        "categories": [{"id": i, "name": str(i)} for i in range(3)],
        "annotations": [
            {
                "id": 1,
                "image_id": 1,
                "category_id": int(found.labels[best]),
                "segmentation": {"size": rle["size"], "counts": rle["counts"].decode()},
                "area": float(coco_mask.area(rle)),
                "bbox": coco_mask.toBbox(rle).tolist(),
                "iscrowd": 0,
            }
        ],
    }
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    metric = CocoMetric(ann_file=str(tmp_path / "truth.json"), metric=["bbox", "segm"])
    metric.dataset_meta = {"classes": ("0", "1", "2")}
    metric.process({}, [sample.to_dict() for sample in results])
    scores = metric.evaluate(size=1)
    assert scores["coco/segm_mAP"] > 0
    assert scores["coco/bbox_mAP"] > 0


def test_weights_come_from_the_config(build_knet: Callable, make_batch: Callable) -> None:
    plain = build_knet().train()
    weighted = build_knet(
        train_cfg={"loss_weights": {"cls": 4.0, "mask": 0.0, "dice": 2.0, "seg": 3.0}, "cost_weights": {"mask": 1.0}}
    ).train()
    batch = make_batch([3, 1])
    before, after = plain(*batch, mode="loss"), weighted(*batch, mode="loss")
    for name, factor in (("loss_rpn_mask", 0), ("loss_rpn_dice", 0.5), ("loss_rpn_seg", 3), ("s1.loss_cls", 2)):
        torch.testing.assert_close(after[name], factor * before[name])
