"""K-Net for MMDetection 3; importing this package registers it."""

from stage2_training.knet.detector import KNet
from stage2_training.knet.heads import KernelHead, KernelIterHead

__all__ = ["KNet", "KernelHead", "KernelIterHead"]
