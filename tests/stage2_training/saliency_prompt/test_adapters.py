"""What holds for every adapter: QueryInst, Mask2Former, MaskFormer, DETR, Deformable DETR."""

import functools
from collections.abc import Callable
from inspect import signature
from typing import Any

import pytest
import torch
from mmdet.models.detectors import BaseDetector
from mmdet.models.task_modules.assigners import HungarianAssigner
from mmengine.optim import OptimWrapper
from torch import Tensor, nn

from stage1_proposals.common.errors import UserError
from stage2_training.saliency_prompt.matching import box_prompts

pytestmark = pytest.mark.parametrize("name", ["queryinst", "mask2former", "maskformer", "detr", "deformable_detr"])
Batch = tuple[Tensor, list]
LAYERS = 3
BOXES_ALONE = ("detr", "deformable_detr")


def losses_of(model: BaseDetector, batch: Batch) -> dict[str, Any]:
    """Of the same random points each time."""
    torch.manual_seed(1)
    return model(*batch, mode="loss")


def total(model: BaseDetector, losses: dict[str, Any]) -> Tensor:
    return model.parse_losses(losses)[0]


def without_gradient(model: BaseDetector, batch: Batch) -> set[str]:
    """Names of the parameters that a training step does not reach."""
    total(model, losses_of(model, batch)).backward()
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad and parameter.grad is None}


def classify(model: BaseDetector, layer: int, queries: Tensor) -> Tensor:
    """The class logits that a detector predicts from the queries that a layer has put out."""
    if hasattr(model, "panoptic_head"):
        head = model.panoptic_head
        return head.cls_embed(head.transformer_decoder.post_norm(queries))
    if hasattr(model, "query_embedding"):
        return (getattr(model.bbox_head, "fc_cls", None) or model.bbox_head.cls_branches[layer])(queries)
    head = model.roi_head.bbox_head[layer]
    return head.fc_cls(nn.Sequential(*head.cls_fcs)(queries))


def watch_layers(model: BaseDetector, monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """To be filled with the queries that each layer really computes with."""
    decoder, entered = model.query_decoder(), []
    for layer in decoder.layers:

        def forward(*args: Any, forward: Callable = layer.forward, **kwargs: Any) -> Any:
            entered.append(signature(forward).bind(*args, **kwargs).arguments[decoder.argument])
            return forward(*args, **kwargs)

        monkeypatch.setattr(layer, "forward", functools.wraps(layer.forward)(forward))
    return entered


def hook_count(model: BaseDetector) -> int:
    """How many hooks and observers a detector carries."""
    hooks = sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())
    return hooks + sum(assigner.observer is not None for assigner in model.query_decoder().assigners)


def test_all_that_is_added_are_linear_layers(name: str, build_adapted: Callable) -> None:
    model, plain = build_adapted(name, {}), build_adapted(name)
    added = {"kernel_supervision.linear.weight", "kernel_supervision.linear.bias"}
    if name == "detr":
        added |= {"prompt_projection.weight", "prompt_projection.bias"}
    assert model.state_dict().keys() - plain.state_dict().keys() == added
    report = plain.load_state_dict(model.state_dict(), strict=False)
    assert not report.missing_keys
    assert set(report.unexpected_keys) == added


def test_without_prompts_and_kernel_loss_it_is_vanilla(
    name: str, build_adapted: Callable, make_batch: Callable
) -> None:
    model, plain = build_adapted(name, {"matching": "none", "kernel_loss_weight": 0.0}), build_adapted(name)
    plain.load_state_dict(model.state_dict(), strict=False)
    losses, expected = losses_of(model, make_batch([3, 0, 2])), losses_of(plain, make_batch([3, 0, 2]))
    kernel = {f"s{i}.loss_kernel" for i in range(LAYERS)}
    assert losses.keys() - expected.keys() == kernel
    for key, value in expected.items():
        assert torch.equal(torch.as_tensor(losses[key]), torch.as_tensor(value)), key
    assert all(losses[key] == 0 for key in kernel)


def test_predictions_are_vanilla(name: str, build_adapted: Callable, make_batch: Callable) -> None:
    model, plain = build_adapted(name, {}).eval(), build_adapted(name).eval()
    plain.load_state_dict(model.state_dict(), strict=False)
    with torch.no_grad():
        prompted = model(*make_batch([3]), mode="predict")[0].pred_instances
        expected = plain(*make_batch([3]), mode="predict")[0].pred_instances
    assert torch.equal(prompted.scores, expected.scores)
    if name in BOXES_ALONE:
        assert torch.equal(prompted.bboxes, expected.bboxes)
        assert prompted.bboxes.shape == (6, 4)
        return
    assert torch.equal(prompted.masks, expected.masks)
    assert prompted.masks.shape[1:] == (120, 180)
    assert prompted.masks.dtype == torch.bool


@pytest.mark.parametrize("counts", [[0, 0], [9, 1, 0], [100, 2]])
def test_a_training_step(name: str, build_adapted: Callable, make_batch: Callable, counts: list[int]) -> None:
    model, batch = build_adapted(name, {"matching": "random"}), make_batch(counts)
    losses = losses_of(model, batch)
    assert all(torch.as_tensor(value).isfinite().all() for value in losses.values())
    assert total(model, losses) < 200  # nothing is divided by next to nothing
    assert not without_gradient(model, batch)


@pytest.mark.parametrize("loss", ["cosine", "reconstruct"])
def test_a_batch_without_proposals_has_no_prompts_as_targets(
    name: str, build_adapted: Callable, make_batch: Callable, loss: str
) -> None:
    """Also where what prompts are made of has another length than seed features."""
    settings = {"matching": "random", "kernel_loss": loss, "kernel_target": "prompt"}
    model = build_adapted(name, settings)
    losses = losses_of(model, make_batch([0, 0]))
    assert all(losses[f"s{layer}.loss_kernel"] == 0 for layer in range(LAYERS))


def test_train_step_moves_the_kernel_supervision(name: str, build_adapted: Callable, make_batch: Callable) -> None:
    model, (images, samples) = build_adapted(name, {}), make_batch([3, 2])
    before = model.kernel_supervision.linear.weight.clone()
    data = {"inputs": [(image.sigmoid() * 255).byte() for image in images], "data_samples": samples}
    logged = model.train_step(data, OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1)))
    assert "s0.loss_kernel" in logged
    assert not torch.equal(before, model.kernel_supervision.linear.weight)


def test_kernel_loss_reaches_the_learned_queries(name: str, build_adapted: Callable, make_batch: Callable) -> None:
    model = build_adapted(name, {"matching": "none"})
    losses_of(model, make_batch([3]))[f"s{LAYERS - 1}.loss_kernel"].backward()
    learned = model.query_decoder().learned
    of_weights = learned.grad if learned.is_leaf else model.query_embedding.weight.grad[:, -learned.shape[1] :]
    assert of_weights.abs().sum() > 0


def test_prompts_enter_the_first_layer_alone(
    name: str, build_adapted: Callable, make_batch: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, batch = build_adapted(name, {"drop_prob": 0.0}), make_batch([4, 0, 2])
    decoder, levels = model.query_decoder(), []
    handle = decoder.pyramid.register_forward_hook(lambda _, args, returned: levels.append(decoder.levels(returned)))
    entered = watch_layers(model, monkeypatch)
    prompted = model.prompted_pass(*batch)
    handle.remove()
    plain = torch.zeros_like(decoder.learned) if name == "maskformer" else decoder.learned
    boxes = [sample.gt_instances.bboxes for sample in batch[1]]
    prompts = box_prompts(levels[0][-1], boxes, [(60, 90)] * 3, 96, offset=-16).features
    if name == "detr":
        prompts = model.prompt_projection(prompts)
    assert torch.equal(entered[0][1], plain)  # no proposal, no prompt
    for image in (0, 2):
        own = prompts[image, : len(boxes[image])]
        for n, query in enumerate(decoder.learned):
            best = int(torch.stack([torch.cosine_similarity(query, prompt, dim=0) for prompt in own]).argmax())
            torch.testing.assert_close(entered[0][image, n], plain[n] + own[best])
    assert len(prompted.queries) == LAYERS
    assert len(entered) == len(decoder.layers) == (1 if name in BOXES_ALONE else LAYERS)
    for layer in range(1, len(entered)):
        assert torch.equal(entered[layer], prompted.queries[layer - 1])


def test_prompts_come_from_the_map_that_queries_are_multiplied_with(
    name: str, build_adapted: Callable, make_batch: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, seen = build_adapted(name, {"matching": "sequential", "pool_from": "query_map"}), []
    monkeypatch.setattr(
        "stage2_training.saliency_prompt.prompter.box_prompts",
        lambda feature, *args: seen.append(feature) or box_prompts(feature, *args),
    )
    if name in BOXES_ALONE:
        with pytest.raises(UserError, match=r"pool_from 'query_map': this model multiplies no map .* use pyramid"):
            losses_of(model, make_batch([1]))
        return
    losses_of(model, make_batch([1]))
    # Masks are made at stride 4; the first regions of QueryInst, the whole image of 64 x 96 pixels, are cut from there.
    assert [feature.shape for feature in seen] == [(1, model.query_decoder().learned.shape[1], 16, 24)]


@pytest.mark.parametrize("level", [0, -1])
def test_level(
    name: str, build_adapted: Callable, make_batch: Callable, monkeypatch: pytest.MonkeyPatch, level: int
) -> None:
    model = build_adapted(name, {"drop_prob": 0.0, "matching": "sequential", "level": level})
    batch = make_batch([1])
    seen = []
    monkeypatch.setattr(
        "stage2_training.saliency_prompt.prompter.box_prompts",
        lambda feature, *args: seen.append(feature) or box_prompts(feature, *args),
    )
    losses_of(model, batch)
    finest = {"queryinst": 4, "mask2former": 8, "maskformer": 4, "detr": 32, "deformable_detr": 8}[name]
    strides = (finest, 32)
    assert seen[0].shape[-2:] == (64 // strides[level], 96 // strides[level])
    assert not seen[0].requires_grad


def test_a_level_that_does_not_exist_is_named(name: str, build_adapted: Callable, make_batch: Callable) -> None:
    model = build_adapted(name, {"level": 9})
    count = {"queryinst": 4, "mask2former": 3, "maskformer": 2, "detr": 1, "deformable_detr": 3}[name]
    with pytest.raises(UserError, match=f"level 9: use one from -{count} to {count - 1}"):
        losses_of(model, make_batch([1]))
    assert hook_count(model) == 0


def test_all_hooks_are_removed(name: str, build_adapted: Callable, make_batch: Callable) -> None:
    model = build_adapted(name, {})
    losses_of(model, make_batch([2]))
    assert hook_count(model) == 0


def test_each_layer_is_supervised_with_its_own_assignment(
    name: str, build_adapted: Callable, make_batch: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The class logits that an assigner is shown tell the layer and the image that it works on."""
    shown, assign = [], HungarianAssigner.assign

    def watched(self: HungarianAssigner, pred_instances: Any, gt_instances: Any, **kwargs: Any) -> Any:
        result = assign(self, pred_instances, gt_instances, **kwargs)
        shown.append((pred_instances.scores.clone(), result.gt_inds))
        return result

    monkeypatch.setattr(HungarianAssigner, "assign", watched)
    model = build_adapted(name, {})
    counts = [4, 0, 2]
    batch = make_batch(counts)
    prompted = model.prompted_pass(*batch)
    expected = model.kernel_losses(prompted.queries, prompted.assignments, batch[1])
    assert expected.items() <= prompted.losses.items()
    assert len(prompted.assignments) == LAYERS
    for layer, (put_out, assignment) in enumerate(zip(prompted.queries, prompted.assignments, strict=True)):
        assert len(assignment) == sum(counts)
        logits = classify(model, layer, put_out)
        for image, own in enumerate(logits):
            (numbers,) = [found for scores, found in shown if torch.allclose(scores, own, atol=1e-6)]
            pairs = {(n, int(number) - 1) for n, number in enumerate(numbers) if number > 0}
            here = assignment.image == image
            kept = zip(assignment.kernel[here].tolist(), assignment.instance[here].tolist(), strict=True)
            assert set(kept) == pairs


def test_bfloat16(name: str, build_adapted: Callable, make_batch: Callable) -> None:
    model, batch = build_adapted(name, {}), make_batch([3, 0])
    full = losses_of(model, batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = losses_of(model, batch)
    total(model, losses).backward()
    for layer in range(LAYERS):
        assert losses[f"s{layer}.loss_kernel"].dtype == torch.float32
        assert losses[f"s{layer}.loss_kernel"].item() == pytest.approx(full[f"s{layer}.loss_kernel"].item(), abs=0.1)
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters() if parameter.grad is not None)
