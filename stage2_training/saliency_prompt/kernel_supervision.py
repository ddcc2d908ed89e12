"""Kernel supervision: pulls a matched kernel towards its proposal's seed feature (Section 3.4, Eq. 9)."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from stage2_training.knet.assignment import Assignment, mean_pairs


class KernelSupervision(nn.Module):
    """The kernel loss, with its linear layer from seed features to kernels, which is discarded after pre-training.

    Args:
        feature_dim: D, length of a seed feature.
        channels: C, length of a kernel.
        weight: weight of the loss.
    """

    def __init__(self, feature_dim: int, channels: int, weight: float = 1.0) -> None:
        super().__init__()
        self.linear = nn.Linear(feature_dim, channels)
        self.weight = weight

    def forward(
        self, seed_features: Sequence[Tensor], kernels: Sequence[Tensor], assignments: Sequence[Assignment]
    ) -> dict[str, Tensor]:
        """Losses `s0.loss_kernel`, `s1.loss_kernel`, ...: one for each update stage.

        Args:
            seed_features: one for each image, float32 (L_b, D), in the order of its instances.
            kernels: of each stage, (B, N, C).
            assignments: of each stage.
        """
        targets = self.linear(pad_sequence(list(seed_features), batch_first=True))
        return {
            f"s{i}.loss_kernel": self.weight * kernel_loss(targets, stage_kernels, assignment)
            for i, (stage_kernels, assignment) in enumerate(zip(kernels, assignments, strict=True))
        }


def kernel_loss(targets: Tensor, kernels: Tensor, assignment: Assignment) -> Tensor:
    """Mean of `1 - cos(targets_l, kernels_n)` over the matched pairs of the batch in all processes.

    Without pairs it is 0 but keeps the graph, so that every parameter gets a gradient.

    Args:
        targets: (B, L, C).
        kernels: (B, N, C).
        assignment: M pairs (n, l).
    """
    target = targets[assignment.image, assignment.instance].float()
    kernel = kernels[assignment.image, assignment.kernel].float()
    return (1 - F.cosine_similarity(target, kernel, dim=1)).sum() / mean_pairs(assignment)
