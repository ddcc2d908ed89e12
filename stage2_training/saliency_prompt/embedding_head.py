"""An embedding head: what a feature of the matched proposal is predicted with, from the query (UP-DETR, DETReg)."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from stage2_training.knet.assignment import Assignment


class EmbeddingHead(nn.Module):
    """Makes a feature of each query, and compares it with that of the proposal that the query is matched with.

    `KernelSupervision` maps features to the queries' space; this maps queries to the features' space, so that the
    target is fixed and cannot collapse. It is discarded after pre-training, too.

    Args:
        feature_dim: D, length of a feature.
        channels: C, length of a query.
        weight: weight of the loss.
        loss: `reconstruct` (`reconstruction_loss`) or `regress` (`regression_loss`).
    """

    def __init__(self, feature_dim: int, channels: int, weight: float = 1.0, loss: str = "reconstruct") -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(channels, channels), nn.ReLU(), nn.Linear(channels, feature_dim))
        self.weight = weight
        self.loss = regression_loss if loss == "regress" else reconstruction_loss

    def forward(
        self, features: Sequence[Tensor], queries: Sequence[Tensor], assignments: Sequence[Assignment]
    ) -> dict[str, Tensor]:
        """Losses `s0.loss_kernel`, `s1.loss_kernel`, ...: one for each stage or layer.

        Args:
            features: one for each image, (L_b, D), in the order of its instances.
            queries: of each layer, (B, N, C).
            assignments: of each layer.
        """
        targets = pad_sequence(list(features), batch_first=True)
        return {
            f"s{layer}.loss_kernel": self.weight * self._layer_loss(targets, layer_queries, assignment)
            for layer, (layer_queries, assignment) in enumerate(zip(queries, assignments, strict=True))
        }

    def _layer_loss(self, targets: Tensor, queries: Tensor, assignment: Assignment) -> Tensor:
        """Mean over the matched pairs of the batch in all processes; without pairs 0, which keeps the graph."""
        predicted = self.layers(queries[assignment.image, assignment.kernel]).float()
        target = targets[assignment.image, assignment.instance].detach().float()
        return self.loss(predicted, target).sum() / assignment.mean_pairs


def reconstruction_loss(predicted: Tensor, targets: Tensor) -> Tensor:
    """`1 - cos` of M predicted features and their targets, (M, D) each -> (M,).

    Twice this is the squared distance of both at unit length, as UP-DETR has it.
    """
    return 1 - F.cosine_similarity(predicted, targets, dim=1)


def regression_loss(predicted: Tensor, targets: Tensor) -> Tensor:
    """Mean absolute difference of the D components (DETReg), (M, D) each -> (M,).

    Targets are scaled to a root mean square of 1. Seed features have unit length: their components, and the loss with
    them, would shrink with D.
    """
    scaled = F.normalize(targets, dim=1) * targets.shape[1] ** 0.5
    return (predicted - scaled).abs().mean(dim=1)
