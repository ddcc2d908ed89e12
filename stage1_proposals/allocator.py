"""Keeping freed memory in the process.

glibc gives every large block straight back to the kernel, so a network on CPU can spend more time in page faults
than in convolutions: EfficientNet-Lite0 at 8 x 480 x 640 takes half the time when the blocks are kept and used again.
"""

import ctypes

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
