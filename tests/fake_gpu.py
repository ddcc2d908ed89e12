"""A GPU that is not there: tensors on `cuda` on a machine without CUDA, and a record of what would make the GPU wait.

A tensor on it is a `FakeTensor` of torch's `FakeTensorMode`, which has a device but no memory there, and holds its
values on the CPU, where every operator is computed. So code whose shapes depend on values, as matching, runs whole.
An operator that gets tensors of both devices fails as it does on a GPU. Not checked are the GPU's own kernels, and
backward passes, because PyTorch's autograd needs CUDA's streams for them.
"""

import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

aten = torch.ops.aten
CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
COPIES = (aten._to_copy.default, aten.copy_.default)
INDEXING = (aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_)
NMS = "torchvision::nms"
# Kinds of waiting.
DOWN, UP, SIZE, SCALAR = "values to the CPU", "copy to the GPU", "size by values", "scalar of the CPU"
# Libraries and modules whose functions do not tell which line of code makes the GPU wait.
BELOW = ("torch", "functools.py", "contextlib.py", "fake_gpu.py")


class FakeGPU(FakeTensorMode):
    """While it is entered, there are tensors on `cuda`.

    Attributes:
        waits: how often the GPU waited: (place, kind) to a number. The place is the innermost function that is not
            PyTorch's, as `file.py:function` or `library/file.py:function`. Kinds: `DOWN`, values come to the CPU; `UP`,
            a tensor of the CPU is copied to the GPU with `non_blocking=False`; `SIZE`, how large a result is depends on
            values; `SCALAR`, an operator of the GPU gets a tensor without dimensions from the CPU.
    """

    def __init__(self) -> None:
        super().__init__(allow_non_fake_inputs=True)
        self.waits: Counter[tuple[str, str]] = Counter()

    def dispatch(self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        """Compute one operator; PyTorch calls this for each."""
        kwargs = dict(kwargs or {})
        leaves = list(_leaves([args, kwargs]))
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        on_gpu = [tensor for tensor in tensors if isinstance(tensor, FakeTensor)]
        device = torch.device(kwargs["device"]) if kwargs.get("device") is not None else CUDA if on_gpu else CPU
        if func.namespace == "prim":
            return super().dispatch(func, types, args, kwargs)
        if not on_gpu and device.type != "cuda":
            return func(*args, **kwargs)
        if "device" in kwargs:
            kwargs["device"] = CPU
        values = func(*_mapped(values_of, args), **_mapped(values_of, kwargs))
        kind = self._kind(func, args, kwargs, tensors, device, values)
        if kind is not None:
            self.waits[_place(), kind] += 1
        known = {id(values_of(tensor)): tensor for tensor in tensors}  # results that are arguments: in place

        def placed(result: Any) -> Any:
            if not isinstance(result, Tensor) or id(result) in known:
                return known.get(id(result), result)
            return self.holding(result) if device.type == "cuda" else result

        return _mapped(placed, values)

    def holding(self, values: Tensor) -> FakeTensor:
        """A tensor on the GPU with these values of the CPU."""
        shape = torch.empty_strided(values.size(), values.stride(), dtype=values.dtype, device="meta")
        tensor = FakeTensor(self, shape, CUDA)
        tensor.values_on_cpu = values
        return tensor

    def _kind(
        self, func: Any, args: Any, kwargs: Any, tensors: list[Tensor], device: torch.device, values: Any
    ) -> str | None:
        """Why the GPU waits for the CPU or the CPU for the GPU in this operator; None where neither does.

        Raises:
            RuntimeError: tensors of both devices.
        """
        on_cpu = [tensor for tensor in tensors if not isinstance(tensor, FakeTensor)]
        on_gpu = len(on_cpu) < len(tensors)
        if func in COPIES:
            source_on_gpu = isinstance(args[1] if func is aten.copy_.default else args[0], FakeTensor)
            target_on_gpu = isinstance(args[0], FakeTensor) if func is aten.copy_.default else device.type == "cuda"
            if source_on_gpu == target_on_gpu:
                return None
            return DOWN if source_on_gpu else None if _is_non_blocking(func, args, kwargs) else UP
        if func.overloadpacket in INDEXING:
            indices = [index for index in args[1] if index is not None]
            if any(index.dtype is torch.bool for index in indices):
                return SIZE
            if any(index is one for index in indices for one in on_cpu):
                return UP
            return SCALAR if on_cpu else None
        if on_gpu and any(tensor.dim() for tensor in on_cpu):
            raise RuntimeError(f"{func} at {_place()}: Expected all tensors to be on the same device, cuda:0 and cpu")
        if isinstance(values, bool | int | float):
            return DOWN
        if torch.Tag.dynamic_output_shape in func.tags or func.name() == NMS:
            return SIZE
        return SCALAR if on_gpu and on_cpu else None


def values_of(tensor: Any) -> Any:
    """What a tensor on the GPU holds, which makes nothing wait; all else as it is."""
    return tensor.values_on_cpu if isinstance(tensor, FakeTensor) else tensor


def _is_non_blocking(func: Any, args: Any, kwargs: Any) -> bool:
    return bool(kwargs.get("non_blocking") or (func is aten.copy_.default and args[2:] and args[2]))


def _mapped(function: Any, tree: Any) -> Any:
    if isinstance(tree, tuple | list):
        return type(tree)(_mapped(function, branch) for branch in tree)
    if isinstance(tree, Mapping):
        return {key: _mapped(function, branch) for key, branch in tree.items()}
    return function(tree)


def _leaves(tree: Any) -> Iterator[Any]:
    if isinstance(tree, tuple | list | Mapping):
        for branch in tree.values() if isinstance(tree, Mapping) else tree:
            yield from _leaves(branch)
    else:
        yield tree


def _place() -> str:
    """The innermost function on the stack that is neither PyTorch's nor of this module.

    Returns:
        `file.py:function`, of a library `package/file.py:function`.
    """
    frame = sys._getframe(1)
    while frame.f_back is not None:
        parts = Path(frame.f_code.co_filename).parts
        package = parts[parts.index("site-packages") + 1] if "site-packages" in parts else ""
        if package not in BELOW and parts[-1] not in BELOW and not frame.f_code.co_name.startswith("<"):
            break
        frame = frame.f_back
    return f"{package and package + '/'}{parts[-1]}:{frame.f_code.co_name}"


def _new_tensor(tensor: Tensor, data: Any, **kwargs: Any) -> Tensor:
    """`Tensor.new_tensor` of a list of tensors, which looks for a driver if one of them is on the GPU."""
    numbers = _mapped(lambda leaf: leaf.item() if isinstance(leaf, Tensor) else leaf, list(data))
    return torch.tensor(numbers, **{"dtype": tensor.dtype, "device": tensor.device, **kwargs})


def _enter_without_gradients(mode: torch.inference_mode) -> None:
    """`inference_mode.__enter__` as `no_grad`'s, since `FakeTensorMode` cannot take inference tensors apart."""
    mode.instead = torch.no_grad()
    mode.instead.__enter__()


@contextmanager
def fake_gpu() -> Iterator[FakeGPU]:
    """A GPU that multiplies in bfloat16 under autocast, without cuDNN and flash attention, which no CPU has."""
    gpu = FakeGPU()
    with ExitStack() as stack:
        stack.enter_context(torch.backends.cudnn.flags(enabled=False))
        stack.enter_context(torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH))
        for name, answer in (("amp.common.amp_definitely_not_available", False), ("is_bf16_supported", True)):
            stack.enter_context(patch(f"torch.cuda.{name}", return_value=answer))
        stack.enter_context(patch.object(torch.inference_mode, "__enter__", _enter_without_gradients))
        stack.enter_context(
            patch.object(torch.inference_mode, "__exit__", lambda mode, *error: mode.instead.__exit__(*error))
        )
        stack.enter_context(patch.object(Tensor, "new_tensor", _new_tensor))
        stack.enter_context(patch.object(Tensor, "pin_memory", lambda tensor: tensor))  # which needs a driver
        yield stack.enter_context(gpu)
