"""Keeping freed memory in the process.

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


def choose_device(requested: str | None, *, on_cluster: bool = False) -> str:
    """Choose `cpu` or `cuda`; by default the GPU when there is one.

    For `cpu` it hides GPUs from libraries that are imported later: MMEngine decides on import and has no setting.

    Raises:
        UserError: `cuda` without a GPU that torch can use.
    """
    if requested == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    import torch

    if requested == "cuda" and not on_cluster and not torch.cuda.is_available():
        raise UserError("--device cuda: torch finds no GPU here; use --device cpu")
    device = requested or ("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cpu":
        keep_freed_memory()
    return device
