"""Kernel supervision: pulls a matched kernel towards its proposal's seed feature (Section 3.4, Eq. 9)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from stage2_training.knet.assignment import Assignment


class KernelSupervision(nn.Module):
    """The kernel loss, with its linear layer from seed features to kernels, which is discarded after pre-training.

    Args:
        feature_dim: D, length of a seed feature.
        channels: C, length of a kernel.
        weight: weight of the loss.
        loss: `cosine` (`kernel_loss`) or `contrast` (`contrast_loss`).
    """

    def __init__(self, feature_dim: int, channels: int, weight: float = 1.0, loss: str = "cosine") -> None:
        super().__init__()
        self.linear = nn.Linear(feature_dim, channels)
        self.weight = weight
        self.contrast = loss == "contrast"

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
        losses = {}
        for stage, (stage_kernels, assignment) in enumerate(zip(kernels, assignments, strict=True)):
            if self.contrast:
                loss = contrast_loss(targets, list(map(len, seed_features)), stage_kernels, assignment)
            else:
                loss = kernel_loss(targets, stage_kernels, assignment)
            losses[f"s{stage}.loss_kernel"] = self.weight * loss
        return losses


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
    return (1 - F.cosine_similarity(target, kernel, dim=1)).sum() / assignment.mean_pairs


TEMPERATURE = 0.1  # of the contrast


def contrast_loss(targets: Tensor, counts: Sequence[int], kernels: Tensor, assignment: Assignment) -> Tensor:
    """Mean cross-entropy of each matched kernel's own target among the targets of its image (InfoNCE).

    The cosine distance alone can fall by mapping all seeds of an image to one direction; this cannot. Without pairs it
    is 0 but keeps the graph, as `kernel_loss`.

    Args:
        targets: (B, L, C); image b has the first `counts[b]`.
        counts: number of each image's targets.
        kernels: (B, N, C).
        assignment: M pairs (n, l).
    """
    kernel = F.normalize(kernels[assignment.image, assignment.kernel].float(), dim=-1)
    candidates = F.normalize(targets.float(), dim=-1)[assignment.image]  # (M, L, C)
    logits = (candidates @ kernel[:, :, None]).squeeze(2) / TEMPERATURE
    limits = torch.tensor(counts).to(targets.device, non_blocking=True)[assignment.image]
    padding = torch.arange(targets.shape[1], device=targets.device) >= limits[:, None]
    losses = F.cross_entropy(logits.masked_fill(padding, -torch.inf), assignment.instance, reduction="sum")
    return losses / assignment.mean_pairs
