"""Latents to tokens: a strided convolution per frame, plus absolute positions if rotary positions are off."""

from __future__ import annotations

from torch import Tensor, nn

from mora_env_opensora.models.absolute_position import spatial_positions, temporal_positions
from mora_env_opensora.models.transformer_config import TransformerConfig


class PatchEmbed(nn.Module):
    """`proj`: Conv2d(C -> D) with kernel and stride = patch size."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        patch = config.patch_size
        self.proj = nn.Conv2d(config.in_channels, config.width, kernel_size=patch, stride=patch)

    def forward(self, latents_BCTHW: Tensor) -> Tensor:
        """(B, C, T, H, W) of the weights' dtype -> (B, N, D), tokens ordered t, h, w with w fastest.

        Rows and columns beyond the last whole patch are dropped.
        """
        batch, _, frames = latents_BCTHW.shape[:3]
        maps = self.proj(latents_BCTHW.transpose(1, 2).flatten(0, 1))  # (B*T, D, h, w)
        tokens = maps.flatten(2).transpose(1, 2).unflatten(0, (batch, frames))  # (B, T, h*w, D)
        if not self.config.use_rope:
            tokens = self._add_positions(tokens, (maps.shape[2], maps.shape[3]))
        return tokens.flatten(1, 2)

    def _add_positions(self, tokens_BTSD: Tensor, grid: tuple[int, int]) -> Tensor:
        config, device = self.config, tokens_BTSD.device
        scale_t, scale_h, scale_w = config.interpolation_scales
        trained = (config.sample_size[0] // config.patch_size, config.sample_size[1] // config.patch_size)
        spatial = spatial_positions(grid, trained, (scale_h, scale_w), config.width, device)
        temporal = temporal_positions(tokens_BTSD.shape[1], config.sample_size_t, scale_t, config.width, device)
        # Upstream rounds to the model dtype between the two sums.
        placed = (tokens_BTSD + spatial).to(tokens_BTSD.dtype)
        return (placed + temporal[:, None]).to(tokens_BTSD.dtype)
