"""Single-head spatial attention in the middle of encoder and decoder."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from mora_env_opensora.models.vae.convolution import CausalConv3d
from mora_env_opensora.models.vae.resnet import make_norm


class AttnBlock3DFix(nn.Module):
    """Residual attention over the positions of each frame separately. Keys `norm`, `q|k|v|proj_out.conv`."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = make_norm(channels)
        self.q = CausalConv3d(channels, channels, 1)
        self.k = CausalConv3d(channels, channels, 1)
        self.v = CausalConv3d(channels, channels, 1)
        self.proj_out = CausalConv3d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm(x)
        query, key, value = (self._rows(layer(normed)) for layer in (self.q, self.k, self.v))
        mixed = F.scaled_dot_product_attention(query, key, value)  # scale C^-0.5: one head of width C
        return x + self.proj_out(self._video(mixed, x))

    def _rows(self, x: Tensor) -> Tensor:
        """(B, C, T, H, W) -> (B, T, H*W, C): the frames are the heads."""
        return x.flatten(3).permute(0, 2, 3, 1)

    def _video(self, rows: Tensor, like: Tensor) -> Tensor:
        return rows.permute(0, 3, 1, 2).unflatten(-1, like.shape[-2:])


class AttnBlock3D(AttnBlock3DFix):
    """The form in legacy checkpoints: it reads the channel and time axes as if time came first, and so mixes them."""

    def _rows(self, x: Tensor) -> Tensor:
        batch, channels, frames = x.shape[:3]
        return x.reshape(batch, frames, channels, -1).transpose(2, 3)

    def _video(self, rows: Tensor, like: Tensor) -> Tensor:
        return rows.transpose(2, 3).reshape(like.shape)


def make_attention(name: str, channels: int) -> nn.Module:
    """Make an attention block by its config name."""
    return {"AttnBlock3DFix": AttnBlock3DFix, "AttnBlock3D": AttnBlock3D}[name](channels)
