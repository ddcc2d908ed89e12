"""K-Net for MMDetection 3; importing this package registers it."""

from stage2_training.knet.detector import KNet
from stage2_training.knet.iter_head import KernelIterHead
from stage2_training.knet.kernel_head import KernelHead

__all__ = ["KNet", "KernelHead", "KernelIterHead"]
