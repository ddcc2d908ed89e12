"""Settings of the whole process.

glibc gives every large block straight back to the kernel, so a network on CPU can spend more time in page faults
than in convolutions: EfficientNet-Lite0 at 8 x 480 x 640 takes half the time when the blocks are kept and used again.
"""

import ctypes
import os
import signal
import sys

from stage1_proposals.common.errors import UserError

# Parameters of mallopt(3).
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4


def configure_process() -> None:
    """Set the environment variables that must stand before torch is imported."""
    # Waiting OpenMP threads spin for microseconds, then sleep. By default they spin for milliseconds, which makes a
    # step of training on two cores six times as long once another process wants one of them; without any spinning, a
    # step on a quiet machine takes half as long again. A thousand turns cost neither much.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    # Nothing is fetched behind the user's back: weights come from files or from an explicit download.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    # PyTorch's profiler, from which benchmarks take memory on a CPU, announces itself on stderr otherwise.
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")


def choose_device(requested: str | None, *, on_cluster: bool = False) -> str:
    """The device to use: the requested one, or the GPU when this machine has one.

    Raises:
        UserError: a GPU is requested and there is none.
    """
    if requested == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    import torch

    device = requested or ("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda" and not on_cluster and not torch.cuda.is_available():
        raise UserError("device 'cuda': this machine has no usable GPU; use cpu")
    if device == "cpu":
        keep_freed_memory()
    return device


def keep_freed_memory() -> None:
    """Let glibc serve large blocks from its heap and never trim it; without glibc, do nothing."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(_M_MMAP_MAX, 0)
    mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(_M_TOP_PAD, 64 << 20)


PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent is gone (Linux; elsewhere nothing is done)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
