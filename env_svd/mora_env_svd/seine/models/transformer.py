"""The attention module of one level. Its group norm is per frame, unlike those of the residual blocks."""

from __future__ import annotations

from torch import Tensor, nn

from mora_env_svd.seine.models.attention import Attention, FeedForward
from mora_env_svd.seine.models.frame_convolution import frames_apart, frames_together
from mora_env_svd.seine.models.temporal_attention import TemporalAttention

_GROUP_NORM_EPS = 1e-6  # whatever the config's `norm_eps` is


class TransformerBlock(nn.Module):
    """Attention inside each frame, to the text and over frames, then a feed-forward layer."""

    def __init__(self, width: int, heads: int, text_width: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn1 = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.attn2 = Attention(width, heads, text_width)
        self.norm_temp = nn.LayerNorm(width)
        self.attn_temp = TemporalAttention(width, heads)
        self.norm3 = nn.LayerNorm(width)
        self.ff = FeedForward(width)

    def forward(self, tokens: Tensor, text: Tensor, num_frames: int) -> Tensor:
        """Tokens (B*F, h*w, width) and text (B, L, D) -> tokens."""
        tokens = tokens + self.attn1(self.norm1(tokens))
        tokens = tokens + self.attn2(self.norm2(tokens), text.repeat_interleave(num_frames, dim=0))
        tokens = tokens + self._over_frames(self.norm_temp(tokens), num_frames)
        return tokens + self.ff(self.norm3(tokens))

    def _over_frames(self, tokens: Tensor, num_frames: int) -> Tensor:
        clips = tokens.unflatten(0, (-1, num_frames))  # (B, F, h*w, width)
        mixed = self.attn_temp(clips.transpose(1, 2).flatten(0, 1))
        return mixed.unflatten(0, (clips.shape[0], -1)).transpose(1, 2).flatten(0, 1)


class LevelTransformer(nn.Module):
    """(B, width, F, h, w) and text (B, L, D) -> (B, width, F, h, w)."""

    def __init__(self, width: int, heads: int, text_width: int, groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, width, eps=_GROUP_NORM_EPS)
        self.proj_in = nn.Conv2d(width, width, 1)
        self.transformer_blocks = nn.ModuleList([TransformerBlock(width, heads, text_width)])
        self.proj_out = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor, text: Tensor) -> Tensor:
        frames = self.proj_in(self.norm(frames_together(x)))
        tokens = frames.flatten(2).transpose(1, 2)
        tokens = self.transformer_blocks[0](tokens, text, x.shape[2])
        maps = tokens.transpose(1, 2).unflatten(2, frames.shape[-2:])
        return x + frames_apart(self.proj_out(maps), x.shape[0])
