"""K-Net's adaptive kernel update: a gated sum of a kernel and its group features."""

from torch import Tensor, nn


class KernelUpdator(nn.Module):
    """Gates decide, for each channel, how much of the group feature and of the old kernel to keep.

    Parameter names are those of the published checkpoints: `dynamic_layer` transforms the group feature,
    `input_layer` the kernel; `norm_in` belongs to the update gate and `input_norm_in` to the input gate.

    Args:
        channels: C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dynamic_layer = nn.Linear(channels, 2 * channels)
        self.input_layer = nn.Linear(channels, 2 * channels)
        self.input_gate = nn.Linear(channels, channels)
        self.update_gate = nn.Linear(channels, channels)
        self.norm_in = nn.LayerNorm(channels)
        self.norm_out = nn.LayerNorm(channels)
        self.input_norm_in = nn.LayerNorm(channels)
        self.input_norm_out = nn.LayerNorm(channels)
        self.fc_layer = nn.Linear(channels, channels)
        self.fc_norm = nn.LayerNorm(channels)

    def forward(self, groups: Tensor, kernels: Tensor) -> Tensor:
        """Group features (B, N, C) and kernels (B, N, C) -> new kernels (B, N, C)."""
        group_in, group_out = self.dynamic_layer(groups).chunk(2, dim=-1)
        kernel_in, kernel_out = self.input_layer(kernels).chunk(2, dim=-1)
        gate = kernel_in * group_in
        update_gate = self.norm_in(self.update_gate(gate)).sigmoid()
        input_gate = self.input_norm_in(self.input_gate(gate)).sigmoid()
        mixed = update_gate * self.norm_out(group_out) + input_gate * self.input_norm_out(kernel_out)
        return self.fc_norm(self.fc_layer(mixed)).relu()
