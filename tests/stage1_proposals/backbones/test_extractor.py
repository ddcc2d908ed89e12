"""Weights of every public layout are taken, anything else refused; a feature map is what its specification says."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
import torch.nn.functional as F
import torchvision
from PIL import Image
from skimage import data
from torch import Tensor, nn

from stage1_proposals.backbones.catalogue import CATALOGUE
from stage1_proposals.backbones.extractor import (
    BackboneSpec,
    FeatureExtractor,
    Trunk,
    build_extractor,
    get_spec,
    new_network,
    read_backbone_weights,
)
from stage1_proposals.backbones.weights import locate_weights
from stage1_proposals.common.errors import UserError

VIT = "vit_tiny_patch16_224"


def numbered(architecture: str) -> dict[str, Tensor]:
    """An architecture's state dict; each tensor holds its own number, and one element on disk."""
    with torch.device("meta"):
        expected = new_network(architecture).state_dict()
    return {
        key: torch.tensor(number).to(value.dtype).expand(value.shape)
        for number, (key, value) in enumerate(expected.items())
    }


@pytest.fixture(scope="module")
def resnet() -> dict[str, Tensor]:
    return numbered("resnet50")


@pytest.fixture(scope="module")
def vit() -> dict[str, Tensor]:
    return numbered(VIT)


def save(path: Path, checkpoint: object) -> Path:
    torch.save(checkpoint, path)
    return path


def prefixed(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + key: value for key, value in tensors.items()}


def zeros(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Another network's weights, of the same shapes."""
    return {key: torch.zeros((), dtype=value.dtype).expand(value.shape) for key, value in tensors.items()}


LAYOUTS: dict[str, Callable[[dict[str, Tensor]], object]] = {
    "torchvision, with classifier": lambda t: t | {"fc.weight": torch.zeros(2, 2), "fc.bias": torch.zeros(2)},
    "DenseCL's export": lambda t: {"state_dict": t, "author": "OpenSelfSup"},
    "OpenSelfSup": lambda t: {
        "state_dict": prefixed("encoder_k.0.", zeros(t)) | prefixed("encoder_q.0.", t) | {"queue": torch.zeros(2)},
    },
    "MMSelfSup 0.x": lambda t: {
        "meta": {"mmcls_version": "0.1"},
        "state_dict": {"queue": torch.zeros(2)} | prefixed("encoder_k.0.", zeros(t)) | prefixed("backbone.", t),
    },
    "MMSelfSup 1.x": lambda t: {
        "meta": {"epoch": 200},
        "state_dict": prefixed("backbone.", t) | {"neck.weight": torch.zeros(2)},
    },
    "MoCo": lambda t: {
        "epoch": 200,
        "arch": "resnet50",
        "state_dict": prefixed("module.encoder_k.", zeros(t)) | prefixed("module.encoder_q.", t),
    },
    "MoCo v3": lambda t: {
        "state_dict": prefixed("module.momentum_encoder.", zeros(t)) | prefixed("module.base_encoder.", t),
    },
    "SwAV": lambda t: prefixed("module.", t | {"prototypes.weight": torch.zeros(2)}),
    "DINO": lambda t: {
        "student": prefixed("module.backbone.", zeros(t)),
        "teacher": prefixed("backbone.", t) | {"head.mlp.0.weight": torch.zeros(2)},
    },
    "before num_batches_tracked": lambda t: {k: v for k, v in t.items() if not k.endswith("num_batches_tracked")},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_public_layout_of_a_resnet_is_read(tmp_path: Path, resnet: dict[str, Tensor], layout: str) -> None:
    read = read_backbone_weights("densecl_r50", save(tmp_path / "w.pth", LAYOUTS[layout](resnet)))
    assert read.keys() == resnet.keys()
    for key, value in resnet.items():
        if layout != "before num_batches_tracked" or not key.endswith("num_batches_tracked"):
            assert torch.equal(read[key], value), key


VIT_LAYOUTS: dict[str, Callable[[dict[str, Tensor]], object]] = {
    "timm, with classifier": lambda t: t | {"head.weight": torch.zeros(2, 2), "head.bias": torch.zeros(2)},
    "timm's own checkpoint": lambda t: {"epoch": 3, "arch": VIT, "state_dict": t, "optimizer": {"state": {}}},
    "DeiT, MAE": lambda t: {"model": t | {"decoder_pos_embed": torch.zeros(2)}},
    "DINO's teacher": lambda t: {
        "student": prefixed("module.backbone.", zeros(t)),
        "teacher": prefixed("backbone.", t) | {"head.last_layer.weight": torch.zeros(2)},
    },
    "a student alone": lambda t: {"student": prefixed("module.backbone.", t)},
    "MoCo v3": LAYOUTS["MoCo v3"],
}


@pytest.mark.parametrize("layout", VIT_LAYOUTS)
def test_every_public_layout_of_a_vit_is_read(tmp_path: Path, vit: dict[str, Tensor], layout: str) -> None:
    read = read_backbone_weights(VIT, save(tmp_path / "w.pt", VIT_LAYOUTS[layout](vit)))
    assert read.keys() == vit.keys()
    assert all(torch.equal(read[key], value) for key, value in vit.items())


def test_safetensors_are_read(tmp_path: Path, vit: dict[str, Tensor]) -> None:
    safetensors.torch.save_file({key: value.contiguous() for key, value in vit.items()}, tmp_path / "w.safetensors")
    read = read_backbone_weights(VIT, tmp_path / "w.safetensors")
    assert read.keys() == vit.keys()
    assert all(torch.equal(read[key], value) for key, value in vit.items())


def test_an_authors_names_are_turned_into_timms(tmp_path: Path) -> None:
    """DINOv2's release calls its registers otherwise and keeps the class token's place in the position embedding."""
    name = "vit_small_patch14_reg4_dinov2"
    vit = numbered(name)
    places = vit["pos_embed"].clone()
    original = {key: value for key, value in vit.items() if key not in ("reg_token", "pos_embed")} | {
        "register_tokens": vit["reg_token"],
        "mask_token": torch.zeros(1, 384),
        "pos_embed": torch.cat([torch.zeros(1, 1, 384), places], dim=1),
    }
    read = read_backbone_weights(name, save(tmp_path / "w.pth", original))
    assert read.keys() == vit.keys()
    assert all(torch.equal(read[key], value) for key, value in vit.items())


def without(tensors: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key: value for key, value in tensors.items() if key != name}


def test_a_missing_tensor_is_named(tmp_path: Path, resnet: dict[str, Tensor], vit: dict[str, Tensor]) -> None:
    path = save(tmp_path / "w.pth", without(resnet, "layer4.2.conv3.weight"))
    lacking = r": 1 tensors .*: layer4\.2\.conv3\.weight \(not in the checkpoint\)"
    with pytest.raises(UserError, match=rf"{lacking}; it does not fit densecl_r50 \(resnet50\)$"):
        read_backbone_weights("densecl_r50", path)
    path = save(tmp_path / "w.pth", without(vit, "norm.bias"))
    lacking = r": 1 tensors .*: norm\.bias \(not in the checkpoint\)"
    with pytest.raises(UserError, match=rf"{lacking}; it does not fit {VIT}"):
        read_backbone_weights(VIT, path)


def test_another_shape_is_named(tmp_path: Path, resnet: dict[str, Tensor], vit: dict[str, Tensor]) -> None:
    path = save(tmp_path / "w.pth", resnet | {"conv1.weight": torch.zeros(64, 3, 3, 3)})
    reason = r"\(shape \(64, 3, 3, 3\), the model's is \(64, 3, 7, 7\)\)"
    with pytest.raises(UserError, match=rf"conv1\.weight {reason}; it does not fit"):
        read_backbone_weights("densecl_r50", path)
    path = save(tmp_path / "w.pth", vit | {"patch_embed.proj.weight": torch.zeros(192, 3, 8, 8)})
    reason = r"\(shape \(192, 3, 8, 8\), the model's is \(192, 3, 16, 16\)\)"
    with pytest.raises(UserError, match=rf"patch_embed\.proj\.weight {reason}; it does not fit"):
        read_backbone_weights(VIT, path)


def test_the_momentum_encoder_alone_is_refused(tmp_path: Path, resnet: dict[str, Tensor]) -> None:
    path = save(tmp_path / "w.pth", {"state_dict": prefixed("module.encoder_k.", resnet)})
    lacking = r": 265 tensors .*: conv1\.weight \(not in the checkpoint\), \.\.\."
    with pytest.raises(UserError, match=rf"{lacking}; it does not fit mocov2_r50"):
        read_backbone_weights("mocov2_r50", path)


def test_another_backbones_weights_are_refused(tmp_path: Path, resnet: dict[str, Tensor]) -> None:
    with pytest.raises(UserError, match="does not fit densecl_r50"):
        read_backbone_weights("densecl_r50", locate_weights("lite0_imagenet"))
    path = save(tmp_path / "w.pth", resnet)
    for name in ("lite0_imagenet", VIT, "resnet18", "convnext_atto", "swin_tiny_patch4_window7_224"):
        with pytest.raises(UserError, match=f"does not fit {name}"):
            read_backbone_weights(name, path)


@pytest.mark.parametrize("checkpoint", [torch.zeros(3), {}, {"state_dict": 3}])
def test_a_checkpoint_without_tensors_is_refused(tmp_path: Path, checkpoint: object) -> None:
    path = save(tmp_path / "w.pth", checkpoint)
    for name in ("densecl_r50", "lite0_imagenet", VIT):
        with pytest.raises(UserError, match=r"w\.pth: holds (no weights|Tensor, not a checkpoint)$"):
            read_backbone_weights(name, path)


@pytest.mark.parametrize(
    ("name", "feature_dim", "stride"),
    [
        ("lite0_imagenet", 320, 32),
        ("densecl_r50", 2048, 32),
        ("resnet18", 512, 32),
        ("convnext_atto", 320, 32),
        ("mobilenetv3_small_050", 288, 32),
        ("regnety_002", 368, 32),
        ("mobilevit_xxs", 320, 32),
        ("vit_tiny_patch16_224", 192, 16),
        ("deit_tiny_distilled_patch16_224", 192, 16),
        ("vit_small_patch14_dinov2.lvd142m", 384, 14),
        ("swin_tiny_patch4_window7_224", 768, 32),
    ],
)
def test_the_specification_is_found_from_the_model(name: str, feature_dim: int, stride: int) -> None:
    spec = get_spec(name)
    assert (spec.feature_dim, spec.stride) == (feature_dim, stride)


@pytest.mark.parametrize(
    ("name", "feature_stride", "expected"),
    [
        ("lite0_imagenet", 16, (112 + 320, 16, 2)),
        ("lite0_imagenet", 15, (112 + 320, 16, 2)),
        ("lite0_imagenet", 17, (320, 32, 1)),
        ("resnet18", 8, (128 + 256 + 512, 8, 3)),
        ("resnet18", 1, (64 + 64 + 128 + 256 + 512, 2, 5)),
        ("vit_tiny_patch16_224", 8, (192, 16, 1)),
    ],
)
def test_earlier_maps_are_joined_down_to_a_stride(
    name: str, feature_stride: int, expected: tuple[int, int, int]
) -> None:
    spec = get_spec(name, feature_stride)
    assert (spec.feature_dim, spec.stride, spec.maps) == expected
    assert spec.input_step == get_spec(name).stride


def test_each_of_the_joined_maps_counts_as_much() -> None:
    network = timm.create_model("resnet18", num_classes=0).eval()
    images = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        joined = Trunk(network, 3)(images)
        *_, fine, middle, coarse = network.forward_intermediates(images, intermediates_only=True)
    assert joined.shape == (1, 128 + 256 + 512, 8, 12)
    parts = joined.split([128, 256, 512], 1)
    assert all(torch.allclose(part.norm(dim=1), torch.ones(1), atol=1e-5) for part in parts)
    for part, one in zip(parts, (fine, middle, coarse), strict=True):
        resized = F.interpolate(one, (8, 12), mode="bilinear", align_corners=False)
        assert torch.cosine_similarity(part, resized).min() > 1 - 1e-5


def test_normalisation_is_that_of_the_weights() -> None:
    assert get_spec("lite0_imagenet").mean == (127.5, 127.5, 127.5)
    assert get_spec("densecl_r50").std == (58.395, 57.12, 57.375)
    assert get_spec("resnet18").mean == pytest.approx((123.675, 116.28, 103.53))
    assert get_spec("vit_tiny_patch16_224").std == pytest.approx((127.5, 127.5, 127.5))
    assert get_spec("vit_base_patch16_clip_224.openai").mean == pytest.approx((122.771, 116.746, 104.094), abs=1e-3)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("beit_base_patch16_224", r"any size in steps of 16 pixels, and 80 x 176 is refused \(AssertionError: Input"),
        ("maxvit_tiny_tf_224", r"any size in steps of 32 pixels, and 160 x 352 is refused \(AssertionError: .*window"),
        ("inception_v3", r"every 32 pixels, so 5 x 11 here, and gets 3 x 9"),
        ("mobilevitv2_050", r"every 32 pixels, so 5 x 11 here, and gets 6 x 12"),
    ],
)
def test_an_architecture_that_fixes_its_input_is_refused(name: str, reason: str) -> None:
    with pytest.raises(UserError, match=f"backbone {name} cannot be used: .*{reason}"):
        get_spec(name)


def initialised(name: str, path: Path) -> FeatureExtractor:
    """A backbone of timm's with random weights that went through a file."""
    torch.manual_seed(0)
    return build_extractor(name, save(path / "w.pth", new_network(name).state_dict()))


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "test_convnext", "test_vit", "test_vit2"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_features_have_the_specified_shape_at_any_size(tmp_path: Path, name: str, dtype: torch.dtype) -> None:
    backbone = initialised(name, tmp_path)
    for rows, columns in ((2, 3), (5, 1)):
        height, width = backbone.spec.stride * rows, backbone.spec.stride * columns
        features = backbone(torch.randint(0, 256, (2, 3, height, width)).to(dtype))
        assert features.shape == (2, backbone.spec.feature_dim, rows, columns)
        assert features.dtype == torch.float32
        assert features.isfinite().all()


def test_a_swin_takes_any_size(tmp_path: Path) -> None:
    swin = timm.create_model("swin_tiny_patch4_window7_224", num_classes=0, embed_dim=12, dynamic_img_size=True)
    features = Trunk(swin).eval()(torch.rand(1, 3, 96, 160))
    assert features.shape == (1, 96, 3, 5)


def test_a_vits_features_are_its_patch_tokens_after_the_final_norm() -> None:
    """Token by token as in the plain forward pass, in the rows and columns of the patches."""
    torch.manual_seed(0)
    network: Any = timm.create_model("test_vit", num_classes=0, reg_tokens=3, dynamic_img_size=True).eval()
    nn.init.normal_(network.norm.weight)
    images = torch.rand(2, 3, 3 * 16, 4 * 16)
    with torch.inference_mode():
        features, tokens = Trunk(network)(images), network.forward_features(images)
    assert tokens.shape == (2, 1 + 3 + 3 * 4, 64)
    for row in range(3):
        for column in range(4):
            torch.testing.assert_close(features[:, :, row, column], tokens[:, 1 + 3 + 4 * row + column])


def test_a_resnet_is_torchvisions() -> None:
    """To the bit, so that a file of either library gives the same features."""
    torch.manual_seed(0)
    reference = torchvision.models.resnet50(weights=None).eval()
    network = new_network("resnet50").eval()
    network.load_state_dict(without(without(reference.state_dict(), "fc.weight"), "fc.bias"))
    images = torch.rand(1, 3, 64, 96)
    with torch.inference_mode():
        stem = nn.Sequential(reference.conv1, reference.bn1, reference.relu, reference.maxpool)
        stages = nn.Sequential(reference.layer1, reference.layer2, reference.layer3, reference.layer4)
        assert torch.equal(Trunk(network)(images), stages(stem(images)))


def test_images_are_normalised_before_the_trunk() -> None:
    spec = BackboneSpec("none", 3, 1, 1, 0, 1, (10.0, 20.0, 30.0), (1.0, 2.0, 4.0))
    images = torch.tensor([12, 24, 38], dtype=torch.uint8).view(1, 3, 1, 1)
    assert FeatureExtractor(nn.Identity(), spec)(images).flatten().tolist() == [2, 2, 2]


def test_the_backbone_is_frozen() -> None:
    backbone = build_extractor("lite0_imagenet")
    assert not backbone.training
    assert not any(module.training for module in backbone.modules())
    assert not any(parameter.requires_grad for parameter in backbone.parameters())


def test_built_twice_it_sees_the_same() -> None:
    images = torch.from_numpy(data.chelsea()[None, :64, :64].copy()).permute(0, 3, 1, 2)
    assert torch.equal(build_extractor("lite0_imagenet")(images), build_extractor("lite0_imagenet")(images))


def test_the_bundled_weights_know_a_cat_and_an_espresso() -> None:
    """Taken by position, they must be the right ones: with its classifier, the network names what it sees."""
    tensors = torch.load(locate_weights("lite0_imagenet"), weights_only=True)
    classifier = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    classifier.load_state_dict(dict(zip(classifier.state_dict(), tensors.values(), strict=True)))
    backbone = build_extractor("lite0_imagenet")
    for pixels, classes in ((data.chelsea(), range(281, 286)), (data.coffee(), [967])):
        image = torch.from_numpy(np.array(Image.fromarray(pixels).resize((320, 224)))).permute(2, 0, 1)[None]
        with torch.inference_mode():
            normalised = (image.float() - 127.5) / 127.5
            assert int(classifier(normalised).argmax()) in classes
            stem = classifier.bn1(classifier.conv_stem(normalised))
            torch.testing.assert_close(backbone(image), classifier.blocks(stem))


@pytest.mark.parametrize("name", CATALOGUE)
def test_the_whole_catalogue_fits(name: str) -> None:
    assert get_spec(name).stride == (14 if name == "dinov2_s" else 32)
