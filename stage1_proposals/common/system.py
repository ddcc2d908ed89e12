"""Settings of the whole process: environment, Pillow, device and memory. Commands make them; no import does."""

import ctypes
import logging
import os
import signal
import sys
import warnings
from pathlib import Path

from PIL import Image, ImageFile

from stage1_proposals.common.errors import UserError

# Phones and medium-format cameras take images of up to 200 megapixels (16,320 x 12,240).
MAX_PIXELS = 200_000_000

# Environment variables that libraries read when they are imported; a value that the user has set stays.
ENVIRONMENT = {
    # OpenMP threads that wait spin for milliseconds by default, which makes a training step on two cores six times as
    # long once another process needs one of them. Without any spinning, a step on an idle machine takes half as long
    # again. A thousand spins, some microseconds, avoid both.
    "GOMP_SPINCOUNT": "1000",
    # Nothing is downloaded behind the user's back: weights come from files or from an explicit download.
    "HF_HUB_OFFLINE": "1",
    # PyTorch's profiler, which benchmarks use to measure memory on a CPU, prints notices to stderr by default.
    "KINETO_LOG_LEVEL": "6",
    # Ray neither reports usage statistics nor changes CUDA_VISIBLE_DEVICES of workers without a GPU.
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # The first error that a Ray worker reports ends the run; the others would only repeat it on the terminal.
    "RAY_IGNORE_UNHANDLED_ERRORS": "1",
}

# Files that state a control group's limit of memory and what it uses, as a container sees them.
MEMORY = Path("/")
CGROUP_FILES = (
    ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory.current"),
    ("sys/fs/cgroup/memory/memory.limit_in_bytes", "sys/fs/cgroup/memory/memory.usage_in_bytes"),
)

# Parameters of mallopt(3) and prctl(2).
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
_PR_SET_PDEATHSIG = 1


def configure_process() -> None:
    """Make every process-wide setting of this project. Call it first, before PyTorch or Ray is imported.

    Processes that are forked (data loaders) inherit all settings, and other child processes the environment.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    # A truncated image is refused, never padded with grey.
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    # Pillow warns above this number of pixels and raises above twice as many.
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS // 2
    # An image is either used, and then there is nothing to say, or refused, and then ImageError says why. The filter
    # is set for the process because `warnings.catch_warnings` does not work in threads that decode in parallel.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    logging.getLogger("PIL").setLevel(logging.CRITICAL)


def choose_device(requested: str | None, *, on_cluster: bool = False) -> str:
    """Return the device to compute on, `cpu` or `cuda`, and prepare this process for it.

    On the CPU, freed memory is kept and GPUs are hidden (`hide_gpus`): call this before MMEngine is imported.

    Args:
        requested: as the user named it; None for the GPU if this machine has one.
        on_cluster: the work is done on a Ray cluster, which knows its GPUs; this machine need not have one.

    Raises:
        UserError: unknown device, or `cuda` where PyTorch finds no GPU.
    """
    if requested not in (None, "cpu", "cuda"):
        raise UserError(f"device {requested!r}: use cpu or cuda (CUDA_VISIBLE_DEVICES selects among GPUs)")
    device = requested or ("cuda" if _has_gpu() else "cpu")
    if device == "cuda" and not on_cluster and not _has_gpu():
        raise UserError("device 'cuda': PyTorch finds no usable GPU on this machine; use cpu")
    if device == "cpu":
        hide_gpus()
        keep_freed_memory()
    return device


def _has_gpu() -> bool:
    import torch  # takes seconds; `--device cpu` does not need it

    return torch.cuda.is_available()


def bfloat16_instructions() -> tuple[str, ...]:
    """Return the names of the instructions with which this processor multiplies bfloat16; empty if it has none."""
    import torch

    capabilities = torch.cpu.get_capabilities()
    return tuple(name for name in ("avx512_bf16", "amx_bf16") if capabilities.get(name))


def hide_gpus() -> None:
    """Make PyTorch, and all that asks it, find no GPU in this process and its children.

    MMEngine trains on a GPU whenever PyTorch finds one as MMEngine is imported; this is its documented way to use the
    CPU.

    Raises:
        RuntimeError: a library has found the GPU already.
    """
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    if "torch" in sys.modules and _has_gpu():
        raise RuntimeError("GPUs must be hidden before MMEngine is imported or PyTorch is asked for GPUs")


def keep_freed_memory() -> None:
    """Let glibc's allocator reuse large blocks instead of returning them to the kernel; without glibc, do nothing.

    Otherwise a network on the CPU can spend more time in page faults than in convolutions: EfficientNet-Lite0 at
    8 x 480 x 640 takes twice as long.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(_M_MMAP_MAX, 0)
    mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(_M_TOP_PAD, 64 << 20)


def available_memory() -> int | None:
    """Return the bytes of memory that can still be taken here, within a container's limit; None where that is unknown.

    Read from Linux's `/proc/meminfo` and from the control group, version 2 or 1.
    """
    try:
        lines = (MEMORY / "proc/meminfo").read_text().splitlines()
        free = [1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    except (OSError, ValueError, IndexError):
        return None
    for limit, usage in CGROUP_FILES:
        try:
            free.append(int((MEMORY / limit).read_text()) - int((MEMORY / usage).read_text()))
        except (OSError, ValueError):  # no such group, or `max`
            continue
    return max(0, min(free)) if free else None


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent dies (on Linux; elsewhere, do nothing)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
