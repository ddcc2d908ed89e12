"""Writing a run's detector as a file for other programs: an ONNX graph, a TorchScript program, or its weights."""

import json
import warnings
from pathlib import Path
from typing import Any

import onnx
import torch
from mmdet.models.detectors import BaseDetector
from mmengine.config import Config
from torch import Tensor
from torch.onnx.errors import OnnxExporterError, UnsupportedOperatorError

from stage1_proposals.common.errors import UserError
from stage1_proposals.common.files import atomic_write, writing
from stage2_training.config.evaluation_config import image_pipeline
from stage2_training.config.image_sizes import image_scales
from stage2_training.config.pieces import finds_one_piece
from stage2_training.inference.export_networks import ExportNetwork, export_network

OPSET = 17  # of ONNX; grids are sampled from 16 on
INPUTS, OUTPUTS = ("images", "sizes"), ("scores", "labels", "masks")
TRACED = (128, 160)  # height and width of the images that are traced; others have other sizes


def export_file(model: BaseDetector, config: Config, path: Path, format: str) -> None:
    """Write a detector in one of the formats `onnx`, `torchscript` and `weights`.

    Args:
        model: in evaluation mode, on the CPU.
        config: of its run.

    Raises:
        UserError: the detector has no network for export, or an operator that the format lacks; the file cannot be
            written.
    """
    about = describe_network(model, config)
    with writing(path), atomic_write(path) as scratch:
        if format == "weights":
            torch.save({"state_dict": model.state_dict(), "meta": about}, scratch)
            return
        network = export_network(model)
        example = _example(network)
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the tracer, on what `export_networks` keeps free of images
            if format == "onnx":
                _write_onnx(network, example, scratch, about)
            else:
                traced = torch.jit.trace(network, example, check_trace=False)
                traced.save(str(scratch), _extra_files={"metadata.json": json.dumps(about)})


def describe_network(model: BaseDetector, config: Config) -> dict[str, Any]:
    """What a program must know to use the network.

    Returns:
        `model` and `classes`; `mean` and `std` of RGB pixels in 0..255, by which images are normalised; `scale`, the
        width and height into which they are fitted first, or None; `tiles`, the side of the tiles into which they are
        cut before that, or None; `divisor`, of which the padded height and width are multiples; `threshold`, above
        which a mask's probability is the object; `one_piece`, whether only the largest connected part of that is.
    """
    processor = model.data_preprocessor
    scales = list(image_scales({"pipeline": image_pipeline(config)}))
    metainfo = config.get("test_dataloader", config.train_dataloader).dataset.get("metainfo", {})
    return {
        "model": type(model).__name__.removeprefix("SaliencyPrompt"),
        "classes": list(metainfo.get("classes", ("object",))),
        "mean": processor.mean.flatten().tolist(),
        "std": processor.std.flatten().tolist(),
        "scale": list(scales[0]) if scales else None,
        "tiles": config.get("tiles"),
        "divisor": processor.pad_size_divisor,
        "threshold": 0.5,
        "one_piece": finds_one_piece(config.model),
    }


def _example(network: ExportNetwork) -> tuple[Tensor, Tensor]:
    """Two images to trace, or a single one where the network takes no more; of other sizes than their input."""
    count, (height, width) = (2 if network.dynamic_batch else 1), TRACED
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(count, 3, height, width, generator=generator)
    return images, torch.tensor([[height - 8, width - 8]] * count)


def _write_onnx(network: ExportNetwork, example: tuple[Tensor, Tensor], path: Path, about: dict[str, Any]) -> None:
    batch = {0: "batch"} if network.dynamic_batch else {}
    axes = {"images": {**batch, 2: "height", 3: "width"}}
    if batch:
        axes["sizes"] = batch
    name = type(network.model).__name__
    try:
        torch.onnx.export(
            *(network, example, str(path)),
            dynamo=False,  # the other exporter needs a package more
            opset_version=OPSET,
            input_names=INPUTS,
            output_names=OUTPUTS,
            dynamic_axes=axes,
        )
    except UnsupportedOperatorError as error:
        operator = str(error).split("'")[1] if "'" in str(error) else str(error)
        raise UserError(
            f"{name}: its operator {operator} is not in ONNX (opset {OPSET}); export it as torchscript"
        ) from error
    except OnnxExporterError as error:
        raise UserError(f"{name}: cannot be exported to ONNX ({str(error).splitlines()[0]})") from error
    graph = onnx.load(str(path))
    onnx.helper.set_model_props(graph, {key: json.dumps(value) for key, value in about.items()})
    onnx.save(graph, str(path))
