"""An exported detector finds what MMDetection's prediction finds, on images of any size."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from mmdet.structures import DetDataSample
from torch import nn

from stage1_proposals.common.errors import UserError
from stage2_training.config.compose import finetuning_config
from stage2_training.config.overrides import Overrides
from stage2_training.inference.export_files import export_file
from stage2_training.inference.export_networks import KNetNetwork, export_network
from stage2_training.runs.train import build_model
from tests import tiny_knet

EXAMPLE = Path(__file__).parents[3] / "docs" / "onnx_example.py"
SETTINGS = {"queryinst_lite0": "model.test_cfg.rcnn"}
MODELS = ("knet_lite0", "mask2former_lite0", "queryinst_lite0", "mask_rcnn_lite0")


def detector(name: str, *options: str):
    """An untrained detector with its config."""
    tiny = tiny_knet.MODEL if name == "knet_lite0" else ()
    # The demo's objects are in one piece, but need not be there.
    whole = () if name == "mask_rcnn_lite0" else (f"{SETTINGS.get(name, 'model.test_cfg')}.one_piece=False",)
    overrides = Overrides(cfg_options=[*tiny, *whole, *options])
    config = finetuning_config(name, "demo", "finetune_demo", overrides=overrides)
    return build_model(config).eval(), config


def batch(count: int, height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images with a padding at the bottom and to the right, and their sizes."""
    images = torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(height))
    sizes = torch.tensor([[height - 9, width - 5]] * count)
    images[:, :, height - 9 :] = 0
    images[..., width - 5 :] = 0
    return images, sizes


@torch.no_grad()
def check_same(model, images, sizes, found) -> None:
    """Scores within 1e-3, labels equal, and masks' mean IoU at least 0.99."""
    known = {"scale_factor": (1.0, 1.0), "batch_input_shape": images.shape[-2:]}
    shapes = [tuple(size.tolist()) for size in sizes]
    samples = [DetDataSample(metainfo={**known, "img_shape": shape, "ori_shape": shape}) for shape in shapes]
    predicted = model.predict(images, samples, rescale=False)
    for number, (height, width) in enumerate(shapes):
        wanted = predicted[number].pred_instances
        wanted = wanted[wanted.scores.argsort(descending=True, stable=True)]
        scores, labels, masks = (torch.as_tensor(values[number]) for values in found)
        order = scores.argsort(descending=True, stable=True)
        assert len(order) == len(wanted) > 0
        masks, truth = masks[order] > 0.5, wanted.masks.bool()
        assert not masks[:, height:].any()
        assert not masks[..., width:].any()
        masks = masks[:, :height, :width]
        # Scores that differ by rounding alone may change places: each object is sought among all.
        masks, truth = (each.flatten(1).float() for each in (masks, truth))
        both = truth @ masks.T
        union = truth.sum(1)[:, None] + masks.sum(1) - both
        overlap, partner = torch.where(union > 0, both / union.clamp(min=1), 1.0).max(1)
        assert overlap.mean() > 0.99
        # Of boxes whose overlap is at the threshold of suppression, rounding decides which are kept.
        suppressed = type(model).__name__ == "MaskRCNN"
        differences = (scores[order][partner] - wanted.scores).abs() if suppressed else scores[order] - wanted.scores
        assert (differences.abs() < 1e-3).float().mean() >= (0.97 if suppressed else 1.0)
        assert torch.equal(labels.sort().values, wanted.labels.sort().values)


@pytest.mark.parametrize("name", MODELS)
def test_onnx_finds_what_pytorch_finds(name, tmp_path):
    model, config = detector(name)
    export_file(model, config, tmp_path / "detector.onnx", "onnx")
    session = onnxruntime.InferenceSession(tmp_path / "detector.onnx")
    for images, sizes in (batch(1 if name == "mask_rcnn_lite0" else 2, 128, 96), batch(1, 96, 160)):
        found = session.run(None, {"images": images.numpy(), "sizes": sizes.numpy()})
        check_same(model, images, sizes, found)
    about = session.get_modelmeta().custom_metadata_map
    assert json.loads(about["classes"]) == ["text"]
    assert json.loads(about["scale"]) == [256, 256]
    assert json.loads(about["mean"]) == model.data_preprocessor.mean.flatten().tolist()


def test_torchscript_finds_what_pytorch_finds(tmp_path):
    model, config = detector("knet_lite0")
    export_file(model, config, tmp_path / "detector.ts", "torchscript")
    files = {"metadata.json": ""}
    network = torch.jit.load(tmp_path / "detector.ts", _extra_files=files)
    assert json.loads(files["metadata.json"])["model"] == "KNet"
    images, sizes = batch(3, 96, 160)
    check_same(model, images, sizes, network(images, sizes))


def test_weights_are_plain(tmp_path):
    model, config = detector("knet_lite0")
    export_file(model, config, tmp_path / "weights.pth", "weights")
    read = torch.load(tmp_path / "weights.pth", weights_only=True)
    assert read.keys() == {"state_dict", "meta"}
    model.load_state_dict(read["state_dict"])
    assert read["meta"]["divisor"] == 32
    assert read["meta"]["tiles"] is None
    assert read["meta"]["one_piece"] is False


@pytest.mark.parametrize("one_piece", [False, True])
def test_the_example_needs_numpy_alone(tmp_path, one_piece):
    """Its masks are the network's, in the pixels of the image."""
    source = EXAMPLE.read_text()
    assert [line for line in source.splitlines() if line.startswith(("import", "from"))] == [
        *("import json", "import sys", "import numpy as np", "import onnxruntime")
    ]
    spec = importlib.util.spec_from_file_location("onnx_example", EXAMPLE)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    model, config = detector("knet_lite0", f"model.test_cfg.one_piece={one_piece}")
    export_file(model, config, tmp_path / "detector.onnx", "onnx")
    session = onnxruntime.InferenceSession(tmp_path / "detector.onnx")
    image = np.random.default_rng(0).integers(0, 255, (192, 256, 3), np.uint8)
    scores, _, masks = example.detect(session, image)
    sample = DetDataSample(metainfo={"img_shape": (192, 256), "ori_shape": (192, 256), "scale_factor": (1.0, 1.0)})
    given = {"inputs": [torch.from_numpy(image).permute(2, 0, 1)], "data_samples": [sample]}
    with torch.no_grad():
        wanted = model.test_step(given)[0].pred_instances
    assert np.abs(scores - wanted.scores.numpy()).max() < 1e-3
    assert masks.shape == wanted.masks.shape
    assert (masks == wanted.masks.numpy()).mean() > 0.999


def test_what_cannot_be_exported_is_named(tmp_path, monkeypatch):
    model = nn.Module()
    with pytest.raises(UserError, match=r"^Module: cannot be exported as a network; KNet, Mask2Former, QueryInst, "):
        export_network(model)

    def unknown(network, features, sizes, inside):
        values = torch.linalg.svdvals(features[0])
        return values, values, values

    monkeypatch.setattr(KNetNetwork, "instances", unknown)
    model, config = detector("knet_lite0")
    with pytest.raises(UserError, match=r"^KNet: its operator aten::linalg_svdvals is not in ONNX \(opset 17\)"):
        export_file(model, config, tmp_path / "detector.onnx", "onnx")
    assert not (tmp_path / "detector.onnx").exists()
