from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import pytest
import torch
from mmdet.models.detectors import BaseDetector
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from stage1_proposals.backbones.cell_offset import cell_offset
from stage1_proposals.common.errors import UserError
from stage2_training.saliency_prompt.matching import box_prompts
from stage2_training.saliency_prompt.prompter import Prompter, PromptMap

Batch = tuple[torch.Tensor, list]
CENTRED = {"pool_from": "query_map", "center": True}


@pytest.fixture
def build(build_knet: Callable[..., BaseDetector]) -> Callable[..., BaseDetector]:
    """(settings) -> a small SaliencyPromptKNet in training mode, of the same weights each time."""

    def make(**settings: Any) -> BaseDetector:
        model = build_knet(type="SaliencyPromptKNet", saliency_prompt={"feature_dim": 5} | settings)
        return model.train()

    return make


@pytest.mark.parametrize("matching", ["cosine", "sequential", "random", "mean", "none"])
@pytest.mark.parametrize("counts", [[3], [0, 4], [0], [9, 1, 0], [100, 2]])
def test_a_training_step(build: Callable, make_batch: Callable, matching: str, counts: list[int]) -> None:
    model = build(matching=matching)
    losses = model(*make_batch(counts), mode="loss")
    assert {"s0.loss_kernel", "s1.loss_kernel", "s1.loss_cls", "loss_rpn_seg"} < set(losses)
    assert all(torch.isfinite(loss) for loss in losses.values())
    sum(losses.values()).backward()
    assert not [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]


def test_without_prompts_and_kernel_loss_it_is_knet(
    build: Callable, build_knet: Callable, make_batch: Callable
) -> None:
    model, plain = build(matching="none", kernel_loss_weight=0.0), build_knet().train()
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("kernel_supervision.")})
    batch = make_batch([3, 0, 2])
    losses, expected = model(*batch, mode="loss"), plain(*batch, mode="loss")
    assert losses["s0.loss_kernel"] == losses["s1.loss_kernel"] == 0
    assert expected.items() <= losses.items()


def test_the_linear_layer_is_all_that_is_added(build: Callable, build_knet: Callable) -> None:
    extra = build().state_dict().keys() - build_knet().state_dict().keys()
    assert extra == {"kernel_supervision.linear.weight", "kernel_supervision.linear.bias"}


def test_predictions_are_knets(build: Callable, build_knet: Callable, make_batch: Callable) -> None:
    """Prompts need ground truth; at predict time there is none to look at, and none is looked at."""
    model, plain = build().eval(), build_knet().eval()
    plain.load_state_dict(model.state_dict(), strict=False)
    with torch.no_grad():
        prompted = model(*make_batch([3]), mode="predict")[0].pred_instances
        expected = plain(*make_batch([3]), mode="predict")[0].pred_instances
    assert torch.equal(prompted.scores, expected.scores)
    assert torch.equal(prompted.masks, expected.masks)


def test_prompts_look_at_the_middle_of_their_boxes(build: Callable) -> None:
    """Cells of a padded ResNet look half a cell up and to the left of their centres, here 16 pixels."""
    model, count = build().eval(), 6
    images = torch.randn(count, 3, 256, 256, generator=torch.Generator().manual_seed(0)).requires_grad_()
    sample = DetDataSample(metainfo={"img_shape": (256, 256), "batch_input_shape": (256, 256)})
    sample.gt_instances = InstanceData(bboxes=torch.tensor([[112.0, 112.0, 144.0, 144.0]]))
    prompter, seen = Prompter(replace(model.prompter.settings, detach=False)), {}
    for name, offset in (("moved", model.level_offset), ("not moved", lambda stride: 0)):
        maps = PromptMap(model.extract_feat(images), lambda: torch.zeros(0), offset)
        match = prompter.match(model.rpn_head.initial_kernels, maps, [sample] * count, training=False)
        (gradient,) = torch.autograd.grad(match.prompts.features.sum(), images)
        density, pixels = gradient.abs().sum((0, 1)), torch.arange(256) + 0.5
        seen[name] = ((density.sum(0) @ pixels + density.sum(1) @ pixels) / (2 * density.sum())).item()
    assert seen["not moved"] < 128 - 8
    assert abs(seen["moved"] - 128) < 5


def test_offsets_are_measured_once_and_leave_the_model_as_it_is(
    build: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, measured = build(), []
    monkeypatch.setattr(
        "stage2_training.saliency_prompt.mixin.cell_offset",
        lambda *args: measured.append(args[1]) or cell_offset(*args),
    )
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert [model.level_offset(stride) for stride in (32, 8, 32)] == [-16, -4, -16]
    assert measured == [32, 8]
    assert model.backbone.training
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


class Kernels(NamedTuple):
    """The kernels of a training pass."""

    learned: torch.Tensor  # (N, C)
    first: torch.Tensor  # (B, N, C), that make the first masks
    grouped: torch.Tensor  # (B, N, C), that the kernel head puts out
    entering: torch.Tensor  # (B, N, C), that enter the first update stage


def kernels_of(model: BaseDetector, batch: Batch) -> Kernels:
    head, seen = model.rpn_head, {}

    def watch(_: Any, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """Watch the kernels that are made of the localisation features."""
        if len(args) == 1:
            return None
        feats, make = args
        return feats, lambda localization: seen.setdefault("first", make(localization))

    handles = [
        head.register_forward_pre_hook(watch),
        head.register_forward_hook(lambda _, args, output: seen.update(grouped=output.kernels)),
        model.roi_head.register_forward_pre_hook(lambda _, args: seen.update(entering=args[1])),
    ]
    model(*batch, mode="loss")
    for handle in handles:
        handle.remove()
    learned = head.initial_kernels
    first = seen.get("first", learned.expand_as(seen["grouped"]))
    return Kernels(learned, first, seen["grouped"], seen["entering"])


def level_prompts(model: BaseDetector, batch: Batch, level: int = -1) -> torch.Tensor:
    """(B, L, C), Eq. 5."""
    images, samples = batch
    boxes = [sample.gt_instances.bboxes for sample in samples]
    sizes = [sample.img_shape for sample in samples]
    feature = model.extract_feat(images)[level]
    return box_prompts(feature, boxes, sizes, 96, offset=-48 // feature.shape[-1]).features  # half a cell


def test_prompts_are_centred_means_of_the_localisation_features(build: Callable, make_batch: Callable) -> None:
    model, batch = build(drop_prob=0.0, matching="sequential", **CENTRED), make_batch([2, 1])
    kernels = kernels_of(model, batch)
    localization = model.rpn_head.loc_convs[0](model.rpn_head.localization_fpn(model.extract_feat(batch[0]))[0])
    sizes = [sample.img_shape for sample in batch[1]]
    prompts = box_prompts(localization, [s.gt_instances.bboxes for s in batch[1]], sizes, 96, center=True).features
    expected = torch.stack([prompts[0, [0, 1, 0, 1, 0, 1]], prompts[1, [0] * 6]])
    torch.testing.assert_close(kernels.first - kernels.learned, expected, rtol=1e-3, atol=1e-5)


def of_length(prompt: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    return prompt / prompt.norm() * kernel.norm()


@pytest.mark.parametrize("rescale", [False, True])
@pytest.mark.parametrize("add_to", ["initial", "object"])
def test_each_kernel_gets_its_most_similar_prompt(
    build: Callable, make_batch: Callable, add_to: str, rescale: bool
) -> None:
    model = build(drop_prob=0.0, add_to=add_to, rescale=rescale)
    batch = make_batch([4, 0, 2])
    kernels = kernels_of(model, batch)
    if add_to == "initial":
        before, after = kernels.learned.expand_as(kernels.first), kernels.first
        assert torch.equal(kernels.grouped, kernels.entering)
    else:
        before, after = kernels.grouped, kernels.entering
        assert torch.equal(kernels.first, kernels.learned.expand_as(kernels.first))
    boxes = [sample.gt_instances.bboxes for sample in batch[1]]
    prompts = level_prompts(model, batch)
    assert torch.equal(before[1], after[1])
    for image in (0, 2):
        own = prompts[image, : len(boxes[image])]
        for n, kernel in enumerate(model.rpn_head.initial_kernels):
            best = int(torch.stack([torch.cosine_similarity(kernel, prompt, dim=0) for prompt in own]).argmax())
            prompt = of_length(own[best], kernel) if rescale else own[best]
            torch.testing.assert_close(after[image, n], before[image, n] + prompt)


def test_matching_on_the_kernels_of_the_image(build: Callable, make_batch: Callable) -> None:
    model, batch = build(drop_prob=0.0, match_on="object", add_to="object"), make_batch([4])
    kernels = kernels_of(model, batch)
    prompts = level_prompts(model, batch)[0]
    for n, kernel in enumerate(kernels.grouped[0]):
        best = int(torch.stack([torch.cosine_similarity(kernel, prompt, dim=0) for prompt in prompts]).argmax())
        torch.testing.assert_close(kernels.entering[0, n], kernel + prompts[best])


def test_level(build: Callable, make_batch: Callable) -> None:
    model, batch = build(drop_prob=0.0, matching="sequential", level=1), make_batch([1])
    kernels = kernels_of(model, batch)
    prompt = level_prompts(model, batch, 1)[0, 0]
    torch.testing.assert_close(kernels.first[0] - kernels.learned, prompt.expand(6, -1), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("add_to", ["initial", "object"])
def test_prompts_change_the_first_masks_or_what_comes_after(
    build: Callable, build_knet: Callable, make_batch: Callable, add_to: str
) -> None:
    model, plain, batch = build(drop_prob=0.0, add_to=add_to), build_knet().train(), make_batch([3])
    batch[1][0].gt_instances.labels[:] = 0
    plain.load_state_dict(model.state_dict(), strict=False)
    losses, expected = model(*batch, mode="loss"), plain(*batch, mode="loss")
    assert losses["loss_rpn_seg"] == expected["loss_rpn_seg"]
    for name in ("loss_rpn_mask", "loss_rpn_dice"):
        assert (losses[name] == expected[name]) == (add_to == "object")
    assert losses["s0.loss_cls"] != expected["s0.loss_cls"]


def test_dropping_is_for_training_only(build: Callable, make_batch: Callable) -> None:
    model, batch = build(drop_prob=1.0), make_batch([3])
    kernels = kernels_of(model, batch)
    assert torch.equal(kernels.first[0], kernels.learned)
    kernels = kernels_of(model.eval(), batch)
    assert not torch.isclose(kernels.first, kernels.learned).all(dim=2).any()


def test_kernel_loss_reaches_the_kernels(build: Callable, make_batch: Callable) -> None:
    model = build(matching="none")
    losses = model(*make_batch([3]), mode="loss")
    losses["s1.loss_kernel"].backward()
    assert model.kernel_supervision.linear.weight.grad.abs().sum() > 0
    assert model.rpn_head.init_kernels.weight.grad.abs().sum() > 0


def test_kernels_of_the_image_are_compared_where_they_are_added_to(build: Callable) -> None:
    with pytest.raises(UserError, match=r"saliency_prompt\.match_on 'object': .* use it with add_to=object"):
        build(match_on="object")


@pytest.mark.parametrize("level", [-5, 4, 9])
def test_a_level_that_the_fpn_lacks_is_refused_when_the_model_is_built(build: Callable, level: int) -> None:
    with pytest.raises(UserError, match=f"level {level}: use one from -4 to 3"):
        build(level=level)
