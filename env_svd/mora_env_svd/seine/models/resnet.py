"""The residual block of one level. Its group norms take the statistics over all frames of a clip."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from mora_env_svd.seine.models.frame_convolution import FrameConvolution


class ResnetBlock(nn.Module):
    """(B, in, F, h, w) and the timestep's embedding (B, E) -> (B, out, F, h, w)."""

    def __init__(self, in_channels: int, out_channels: int, time_width: int, groups: int, eps: float) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, in_channels, eps=eps)
        self.conv1 = FrameConvolution(in_channels, out_channels, 3, padding=1)
        self.time_emb_proj = nn.Linear(time_width, out_channels)
        self.norm2 = nn.GroupNorm(groups, out_channels, eps=eps)
        self.conv2 = FrameConvolution(out_channels, out_channels, 3, padding=1)
        if in_channels != out_channels:
            self.conv_shortcut: nn.Module = FrameConvolution(in_channels, out_channels, 1)
        else:
            self.conv_shortcut = nn.Identity()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        hidden = self.conv1(F.silu(self.norm1(x)))
        hidden = hidden + self.time_emb_proj(F.silu(time))[:, :, None, None, None]
        hidden = self.conv2(F.silu(self.norm2(hidden)))
        return self.conv_shortcut(x) + hidden
