"""Encoder and decoder of the autoencoder, built from the config's block names."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mora_env_opensora.models.vae.attention import make_attention
from mora_env_opensora.models.vae.config import VAEConfig
from mora_env_opensora.models.vae.convolution import make_convolution, silu
from mora_env_opensora.models.vae.resample import make_downsample, make_upsample
from mora_env_opensora.models.vae.resnet import make_norm, make_resnet


class _Level(nn.Module):
    """The blocks of one resolution; encoder levels may end in `downsample`, decoder levels in `upsample`."""

    def __init__(self, blocks: list[nn.Module], resample_name: str, resample: nn.Module | None) -> None:
        super().__init__()
        self.block = nn.ModuleList(blocks)
        self.steps: list[Callable[[Tensor], Tensor]] = list(blocks)  # a plain list: no keys in the state dict
        if resample is not None:
            self.add_module(resample_name, resample)
            self.steps.append(resample)


class _Middle(nn.Module):
    def __init__(self, resnet: str, attention: str, width: int) -> None:
        super().__init__()
        self.block_1 = make_resnet(resnet, width, width)
        self.attn_1 = make_attention(attention, width)
        self.block_2 = make_resnet(resnet, width, width)
        self.steps: list[Callable[[Tensor], Tensor]] = [self.block_1, self.attn_1, self.block_2]


class _Coder(nn.Module):
    """Attributes: on_block: called before each block and the last convolution; what it raises ends the pass."""

    gradient_checkpointing = False
    on_block: Callable[[], None] | None = None

    def _run(self, steps: list[Callable[[Tensor], Tensor]], x: Tensor, *, recompute: bool = True) -> Tensor:
        recompute = recompute and self.gradient_checkpointing and torch.is_grad_enabled()
        for step in steps:
            self._tell()
            x = checkpoint(step, x, use_reentrant=False, preserve_rng_state=False) if recompute else step(x)
        return x

    def _tell(self) -> None:
        if self.on_block is not None:
            self.on_block()


class Encoder(_Coder):
    """Pixels (B, 3, F, H, W) -> moments (B, 2 * z_channels, T, H/8, W/8)."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        widths = config.widths
        self.conv_in = make_convolution(config.encoder_conv_in, 3, config.hidden_size, 3)
        self.down = nn.ModuleList()
        width = config.hidden_size
        for level, level_width in enumerate(widths):
            blocks = []
            for _ in range(config.num_res_blocks):
                blocks.append(make_resnet(config.encoder_resnet_blocks[level], width, level_width))
                width = level_width
            name = config.encoder_spatial_downsample[level]
            self.down.append(_Level(blocks, "downsample", make_downsample(name, width) if name else None))
        self.mid = _Middle(config.encoder_mid_resnet, config.encoder_attention, width)
        self.norm_out = make_norm(width)
        self.conv_out = make_convolution(config.encoder_conv_out, width, 2 * config.z_channels, 3)

    def forward(self, pixels: Tensor, *, recompute_blocks: bool = True) -> Tensor:
        """Args: recompute_blocks: False = keep the blocks' activations, for a caller that recomputes the whole pass."""
        x = self.conv_in(pixels)
        for level in self.down:
            x = self._run(cast(_Level, level).steps, x, recompute=recompute_blocks)
        x = self._run(self.mid.steps, x, recompute=recompute_blocks)
        self._tell()
        return self.conv_out(silu(self.norm_out(x)))


class Decoder(_Coder):
    """Latents (B, z_channels, T, h, w) -> pixels (B, 3, F, 8h, 8w), not clamped.

    `up` is indexed by level as in the encoder, so its last entry runs first.
    """

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        widths = config.widths
        width = widths[-1]
        self.conv_in = make_convolution(config.decoder_conv_in, config.z_channels, width, 3)
        self.mid = _Middle(config.decoder_mid_resnet, config.decoder_attention, width)
        levels = []
        for level in reversed(range(len(widths))):
            blocks = []
            for _ in range(config.num_res_blocks + 1):
                blocks.append(make_resnet(config.decoder_resnet_blocks[level], width, widths[level]))
                width = widths[level]
            name = config.decoder_spatial_upsample[level]
            levels.append(_Level(blocks, "upsample", make_upsample(name, width) if name else None))
        self.up = nn.ModuleList(reversed(levels))
        self.norm_out = make_norm(width)
        self.conv_out = make_convolution(config.decoder_conv_out, width, 3, 3)

    def forward(self, latents: Tensor) -> Tensor:
        x = self._run(self.mid.steps, self.conv_in(latents))
        for level in reversed(self.up):
            x = self._run(cast(_Level, level).steps, x)
        self._tell()
        return self.conv_out(silu(self.norm_out(x)))
