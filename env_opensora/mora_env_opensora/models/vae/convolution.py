"""The two convolutions of the autoencoder, both (B, C, T, H, W) -> (B, C', T', H', W'), chosen by config name."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Without a graph, so many frames are processed at a time, which limits padded copies and the kernels' workspace.
SLICE_FRAMES = 4


def merge_frames(x: Tensor) -> Tensor:
    """(B, C, T, H, W) -> (B*T, C, H, W)."""
    return x.transpose(1, 2).flatten(0, 1)


def split_frames(x: Tensor, batch: int) -> Tensor:
    """(B*T, C, H, W) -> (B, C, T, H, W)."""
    return x.unflatten(0, (batch, -1)).transpose(1, 2)


class FrameConv2d(nn.Conv2d):
    """A 2-D convolution of each frame separately. Also accepts (B*T, C, H, W). Keys `weight`, `bias`."""

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim == 4:
            return super().forward(x)
        return split_frames(super().forward(merge_frames(x)), x.shape[0])


class CausalConv3d(nn.Module):
    """A 3-D convolution that sees no later frame: it is padded with copies of the first frame. Keys `conv.*`."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int, int],
        stride: int = 1,
        padding: int = 0,
    ) -> None:
        """`padding` is for height and width; time is padded by kernel - 1 on the left, for any stride."""
        super().__init__()
        kernel = (kernel_size,) * 3 if isinstance(kernel_size, int) else kernel_size
        self.leading_frames = kernel[0] - 1
        self.conv = nn.Conv3d(in_channels, out_channels, kernel, stride, (0, padding, padding))

    def forward(self, x: Tensor) -> Tensor:
        outputs = (x.shape[2] - 1) // self.conv.stride[0] + 1
        if torch.is_grad_enabled() or outputs <= SLICE_FRAMES:
            return self._convolve(x, 0, outputs)
        result = None
        for first in range(0, outputs, SLICE_FRAMES):
            piece = self._convolve(x, first, min(first + SLICE_FRAMES, outputs))
            if result is None:
                result = piece.new_empty((*piece.shape[:2], outputs, *piece.shape[3:]))
            result[:, :, first : first + piece.shape[2]] = piece
        assert result is not None
        return result

    def _convolve(self, x: Tensor, first: int, last: int) -> Tensor:
        """Output frames first..last - 1, computed from the input frames that they see."""
        stride = self.conv.stride[0]
        start, end = first * stride - self.leading_frames, (last - 1) * stride + 1
        seen = x[:, :, max(start, 0) : end]
        if start < 0:
            seen = torch.cat([x[:, :, :1].expand(-1, -1, -start, -1, -1), seen], dim=2)
        return self.conv(seen)


def make_convolution(name: str, in_channels: int, out_channels: int, kernel_size: int) -> nn.Module:
    """Make a size-preserving convolution by its config name."""
    kind = {"Conv2d": FrameConv2d, "CausalConv3d": CausalConv3d}[name]
    return kind(in_channels, out_channels, kernel_size, padding=kernel_size // 2)


def silu(x: Tensor) -> Tensor:
    """x * sigmoid(x), in place if no gradient is needed, so `x` must be a temporary result of the caller."""
    return F.silu(x, inplace=not torch.is_grad_enabled())
