"""Weights of every public layout are taken, anything else refused with one clear line."""

import hashlib
import pickle
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage import data
from torch import Tensor

from stage1_proposals.backbones import (
    CATALOGUE,
    build_backbone,
    locate_weights,
    new_network,
    read_backbone_weights,
    weights_cache,
)
from stage1_proposals.errors import UserError


@pytest.fixture(scope="module")
def resnet() -> dict[str, Tensor]:
    """A ResNet-50's state dict; each tensor holds its own number, and one element on disk."""
    with torch.device("meta"):
        expected = new_network("resnet50").state_dict()
    return {
        key: torch.tensor(number).to(value.dtype).expand(value.shape)
        for number, (key, value) in enumerate(expected.items())
    }


def save(path: Path, checkpoint: object) -> Path:
    torch.save(checkpoint, path)
    return path


LAYOUTS: dict[str, Callable[[dict[str, Tensor]], object]] = {
    "torchvision, with classifier": lambda t: t | {"fc.weight": torch.zeros(2, 2), "fc.bias": torch.zeros(2)},
    "DenseCL's export": lambda t: {"state_dict": t},
    "MMSelfSup": lambda t: {
        "meta": {"epoch": 200},
        "state_dict": {f"backbone.{key}": value for key, value in t.items()} | {"neck.weight": torch.zeros(2)},
    },
    "MoCo": lambda t: {
        "epoch": 200,
        "state_dict": {f"module.encoder_q.{key}": value for key, value in t.items()}
        | {f"module.encoder_k.{key}": torch.zeros(value.shape) for key, value in t.items()},
    },
    "SwAV": lambda t: {f"module.{key}": value for key, value in t.items()},
    "before num_batches_tracked": lambda t: {k: v for k, v in t.items() if not k.endswith("num_batches_tracked")},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_public_layout_is_read_into_plain_names(tmp_path: Path, resnet: dict[str, Tensor], layout: str) -> None:
    read = read_backbone_weights("densecl_r50", save(tmp_path / "w.pth", LAYOUTS[layout](resnet)))
    assert read.keys() == resnet.keys()
    for key, value in resnet.items():
        if layout != "before num_batches_tracked" or not key.endswith("num_batches_tracked"):
            assert torch.equal(read[key], value), key


def without(tensors: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key: value for key, value in tensors.items() if key != name}


def test_a_missing_tensor_is_named(tmp_path: Path, resnet: dict[str, Tensor]) -> None:
    path = save(tmp_path / "w.pth", without(resnet, "layer4.2.conv3.weight"))
    with pytest.raises(UserError, match=r"does not fit densecl_r50 .* 1 of \d+ .*layer4\.2\.conv3\.weight"):
        read_backbone_weights("densecl_r50", path)


def test_another_shape_is_named(tmp_path: Path, resnet: dict[str, Tensor]) -> None:
    path = save(tmp_path / "w.pth", resnet | {"conv1.weight": torch.zeros(64, 3, 3, 3)})
    with pytest.raises(UserError, match=r"conv1\.weight \(64, 3, 3, 3\), not \(64, 3, 7, 7\)"):
        read_backbone_weights("densecl_r50", path)


def test_another_backbones_weights_are_refused(tmp_path: Path, resnet: dict[str, Tensor]) -> None:
    with pytest.raises(UserError, match="does not fit densecl_r50"):
        read_backbone_weights("densecl_r50", locate_weights("lite0_imagenet"))
    with pytest.raises(UserError, match="does not fit lite0_imagenet"):
        read_backbone_weights("lite0_imagenet", save(tmp_path / "w.pth", resnet))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("content", [b"", b"text\n", b"PK\x03\x04 half a zip", b"\x80\x02}q\x00", b"\x80\x05K\x01."])
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(UserError, match=r"w\.pth: (not a|does not fit)"):
        read_backbone_weights("densecl_r50", tmp_path / "w.pth")


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=60) | st.text(max_size=30).map(str.encode))
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_any_bytes_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(UserError):
        read_backbone_weights("densecl_r50", tmp_path / "w.pth")


@pytest.mark.parametrize("checkpoint", [torch.zeros(3), [1, 2], {"state_dict": 3}, {}])
def test_a_checkpoint_without_tensors_by_name_is_refused(tmp_path: Path, checkpoint: object) -> None:
    with pytest.raises(UserError, match="does not fit"):
        read_backbone_weights("densecl_r50", save(tmp_path / "w.pth", checkpoint))


class Payload:
    """Creates a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("write", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))])
def test_code_in_a_checkpoint_is_not_run(tmp_path: Path, write: Callable[[object, Path], object]) -> None:
    write({"state_dict": Payload(tmp_path / "ran")}, tmp_path / "w.pth")
    with pytest.raises(UserError, match="code in a checkpoint is not run"):
        read_backbone_weights("densecl_r50", tmp_path / "w.pth")
    assert not (tmp_path / "ran").exists()


def test_a_missing_file_and_an_unknown_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.pth: no such file"):
        read_backbone_weights("densecl_r50", tmp_path / "gone.pth")
    with pytest.raises(UserError, match="there are lite0_imagenet, densecl_r50"):
        read_backbone_weights("vgg")


@pytest.mark.parametrize("name", ["lite0_imagenet", "densecl_r50"])
def test_the_feature_map_has_the_catalogues_stride_and_channels(
    tmp_path: Path, resnet: dict[str, Tensor], name: str
) -> None:
    weights = None if name == "lite0_imagenet" else save(tmp_path / "w.pth", resnet)
    features = build_backbone(name, weights)(torch.zeros(2, 3, 64, 96, dtype=torch.uint8))
    spec = CATALOGUE[name]
    assert features.shape == (2, spec.feature_dim, 64 // spec.stride, 96 // spec.stride)
    assert features.dtype == torch.float32


def test_the_backbone_is_frozen() -> None:
    backbone = build_backbone("lite0_imagenet")
    assert not backbone.training
    assert not any(parameter.requires_grad for parameter in backbone.parameters())


def test_built_twice_it_sees_the_same() -> None:
    images = torch.from_numpy(data.chelsea()[None, :64, :64].copy()).permute(0, 3, 1, 2)
    assert torch.equal(build_backbone("lite0_imagenet")(images), build_backbone("lite0_imagenet")(images))


def test_the_bundled_weights_know_a_cat_and_an_espresso() -> None:
    """Taken by position, they must be the right ones: with its classifier, the network names what it sees."""
    tensors = torch.load(locate_weights("lite0_imagenet"), weights_only=True)
    classifier = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    classifier.load_state_dict(dict(zip(classifier.state_dict(), tensors.values(), strict=True)))
    backbone = build_backbone("lite0_imagenet")
    for photo, classes in ((data.chelsea(), range(281, 286)), (data.coffee(), [967])):
        image = torch.from_numpy(np.array(Image.fromarray(photo).resize((320, 224)))).permute(2, 0, 1)[None]
        with torch.inference_mode():
            normalised = (image.float() - 127.5) / 127.5
            assert int(classifier(normalised).argmax()) in classes
            stem = classifier.bn1(classifier.conv_stem(normalised))
            torch.testing.assert_close(backbone(image), classifier.blocks(stem))


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The weights of densecl_r50 come from this folder on 127.0.0.1; the cache is empty."""
    folder = tmp_path / "www"
    folder.mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(SimpleHTTPRequestHandler, "log_message", lambda *_: None)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=folder)) as http:
        threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
        url = f"http://127.0.0.1:{http.server_address[1]}/w.pth"
        monkeypatch.setitem(CATALOGUE, "densecl_r50", replace(CATALOGUE["densecl_r50"], url=url))
        yield folder
        http.shutdown()


def test_a_download_that_fails_says_where_to_put_the_file(server: Path) -> None:
    with pytest.raises(UserError, match=r"could not be downloaded .*404.* put http://.*/w\.pth at .*w\.pth"):
        locate_weights("densecl_r50")


def test_a_download_with_another_hash_is_refused_and_not_kept(server: Path) -> None:
    (server / "w.pth").write_bytes(b"not these weights")
    with pytest.raises(UserError, match=r"could not be downloaded .*hash"):
        locate_weights("densecl_r50")
    assert not list(weights_cache().iterdir())


def test_a_download_is_kept_for_the_next_time(server: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = b"these weights"
    (server / "w.pth").write_bytes(content)
    spec = replace(CATALOGUE["densecl_r50"], sha256_prefix=hashlib.sha256(content).hexdigest()[:8])
    monkeypatch.setitem(CATALOGUE, "densecl_r50", spec)
    assert locate_weights("densecl_r50").read_bytes() == content
    (server / "w.pth").unlink()
    assert locate_weights("densecl_r50").read_bytes() == content


def test_the_catalogues_hashes_stand_in_its_file_names() -> None:
    for spec in CATALOGUE.values():
        if spec.url is not None:
            assert spec.sha256_prefix is not None
            assert spec.url.endswith(f"-{spec.sha256_prefix}.pth")
