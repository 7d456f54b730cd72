"""SEINE's UNet: predicts the noise of a clip's latents from text, timestep and given frames."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from mora_env_svd.errors import InputError
from mora_env_svd.seine.models.config import SeineConfig
from mora_env_svd.seine.models.embeddings import TimestepEmbedding, timestep_waves
from mora_env_svd.seine.models.frame_convolution import FrameConvolution
from mora_env_svd.seine.models.levels import DownLevel, MiddleLevel, UpLevel


class SeineUNet(nn.Module):
    """(B, 9, F, h, w) = noisy latents 4, mask 1, masked-video latents 4 -> predicted noise (B, 4, F, h, w).

    With `gradient_checkpointing`, residual blocks and attention modules are computed again in the backward pass.
    """

    def __init__(self, config: SeineConfig) -> None:
        super().__init__()
        self.config = config
        self.gradient_checkpointing = False
        widths = config.block_out_channels
        self.conv_in = FrameConvolution(config.in_channels, widths[0], 3, padding=1)
        self.time_embedding = TimestepEmbedding(widths[0], config.time_width)
        self.down_blocks = nn.ModuleList(DownLevel(config, level) for level in range(config.num_levels))
        self.mid_block = MiddleLevel(config)
        skips, taken = config.skip_widths()[::-1], config.layers_per_block + 1
        self.up_blocks = nn.ModuleList(
            UpLevel(config, position, skips[position * taken : (position + 1) * taken])
            for position in range(config.num_levels)
        )
        self.conv_norm_out = nn.GroupNorm(config.norm_num_groups, widths[0], eps=config.norm_eps)
        self.conv_out = FrameConvolution(widths[0], config.out_channels, 3, padding=1)

    @classmethod
    def from_config(cls, values: Mapping[str, Any]) -> Self:
        """Make the network with fresh weights from upstream's config keys, in eval mode.

        Raises:
            ConfigError: a value is not supported.
        """
        return cls(SeineConfig.parse(values)).eval()

    def config_json(self) -> dict[str, Any]:
        """The content of `config.json`."""
        return {"_class_name": type(self).__name__, **self.config.to_dict()}

    @property
    def device(self) -> torch.device:
        return self.conv_in.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.conv_in.weight.dtype

    def forward(self, sample: Tensor, timestep: Tensor, encoder_hidden_states: Tensor) -> Tensor:
        """Predict the noise.

        Args:
            sample: (B, 9, F, h, w) of the model's dtype.
            timestep: (B,), or a scalar for all samples, counted on the 1000 steps of the base process.
            encoder_hidden_states: text (B, L, D) of the model's dtype, the same for all frames.

        Raises:
            InputError: a shape does not fit.
        """
        timesteps = self._checked(sample, timestep, encoder_hidden_states)
        time = self.time_embedding(timestep_waves(timesteps, self.config.block_out_channels[0]).to(sample.dtype))
        text, run = encoder_hidden_states, self._run
        x = self.conv_in(sample)
        skips = [x]
        for down in self.down_blocks:
            skips += down(skips[-1], time, text, run)
        x = self.mid_block(skips[-1], time, text, run)
        for up in self.up_blocks:
            x = up(x, skips, time, text, run)
        return self.conv_out(F.silu(self.conv_norm_out(x)))

    def _checked(self, sample: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
        """The timesteps (B,)."""
        config = self.config
        if sample.ndim != 5 or sample.shape[1] != config.in_channels:
            raise InputError(f"sample: expected (B, {config.in_channels}, F, h, w), got {tuple(sample.shape)}")
        batch = sample.shape[0]
        if text.ndim != 3 or text.shape[0] != batch or text.shape[2] != config.cross_attention_dim:
            raise InputError(
                f"encoder_hidden_states: expected ({batch}, L, {config.cross_attention_dim}), got {tuple(text.shape)}"
            )
        timesteps = torch.as_tensor(timestep, device=sample.device).reshape(-1)
        if timesteps.shape[0] not in (1, batch):
            raise InputError(f"timestep: expected ({batch},) or a scalar, got {tuple(timesteps.shape)}")
        return timesteps.expand(batch)

    def _run(self, module: nn.Module, *arguments: Tensor) -> Tensor:
        if self.gradient_checkpointing and torch.is_grad_enabled():
            result: Tensor = checkpoint(module, *arguments, use_reentrant=False)
            return result
        return module(*arguments)
