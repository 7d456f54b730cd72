"""The levels of the UNet: down, middle, up."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mora_env_svd.seine.models.config import DOWN_WITH_TEXT, UP_WITH_TEXT, SeineConfig
from mora_env_svd.seine.models.frame_convolution import FrameConvolution, on_frames
from mora_env_svd.seine.models.resnet import ResnetBlock
from mora_env_svd.seine.models.transformer import LevelTransformer

Run = Callable[..., Tensor]
"""Calls a module with its arguments, and may recompute it in the backward pass instead of keeping its activations."""


class _Resampler(nn.Module):
    """The one layer of `downsamplers` or `upsamplers`."""

    def __init__(self, width: int, stride: int) -> None:
        super().__init__()
        self.conv = FrameConvolution(width, width, 3, stride=stride, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


def _resnet(config: SeineConfig, in_channels: int, out_channels: int) -> ResnetBlock:
    return ResnetBlock(in_channels, out_channels, config.time_width, config.norm_num_groups, config.norm_eps)


def _transformer(config: SeineConfig, level: int) -> LevelTransformer:
    width, heads = config.block_out_channels[level], config.num_heads[level]
    return LevelTransformer(width, heads, config.cross_attention_dim, config.norm_num_groups)


class DownLevel(nn.Module):
    """Residual blocks, each followed by attention if the level has text, then half the size."""

    def __init__(self, config: SeineConfig, level: int) -> None:
        super().__init__()
        width = config.block_out_channels[level]
        below = config.block_out_channels[max(level - 1, 0)]
        widths = [below, *[width] * (config.layers_per_block - 1)]
        self.resnets = nn.ModuleList(_resnet(config, each, width) for each in widths)
        has_text = config.down_block_types[level] == DOWN_WITH_TEXT
        self.attentions = nn.ModuleList(_transformer(config, level) for _ in widths if has_text)
        is_last = level == config.num_levels - 1
        self.downsamplers = nn.ModuleList([] if is_last else [_Resampler(width, stride=2)])

    def forward(self, x: Tensor, time: Tensor, text: Tensor, run: Run) -> list[Tensor]:
        """The outputs of its layers in order, of which the last is its result."""
        outputs = []
        for index, resnet in enumerate(self.resnets):
            x = run(resnet, x, time)
            if self.attentions:
                x = run(self.attentions[index], x, text)
            outputs.append(x)
        for downsampler in self.downsamplers:
            outputs.append(downsampler(x))
        return outputs


class MiddleLevel(nn.Module):
    """A residual block, attention, and another residual block."""

    def __init__(self, config: SeineConfig) -> None:
        super().__init__()
        width = config.block_out_channels[-1]
        self.resnets = nn.ModuleList(_resnet(config, width, width) for _ in range(2))
        self.attentions = nn.ModuleList([_transformer(config, config.num_levels - 1)])

    def forward(self, x: Tensor, time: Tensor, text: Tensor, run: Run) -> Tensor:
        x = run(self.resnets[0], x, time)
        x = run(self.attentions[0], x, text)
        return run(self.resnets[1], x, time)


class UpLevel(nn.Module):
    """Residual blocks that each take one skip, with attention if the level has text, then the size of the next skip.

    Args:
        position: in the order of the way up; 0 is the smallest size.
        skip_widths: of the skips that it takes, in their order.
    """

    def __init__(self, config: SeineConfig, position: int, skip_widths: Sequence[int]) -> None:
        super().__init__()
        level = config.num_levels - 1 - position
        width = config.block_out_channels[level]
        below = config.block_out_channels[min(level + 1, config.num_levels - 1)]
        widths = [below, *[width] * config.layers_per_block]
        self.resnets = nn.ModuleList(
            _resnet(config, own + skip, width) for own, skip in zip(widths, skip_widths, strict=True)
        )
        has_text = config.up_block_types[position] == UP_WITH_TEXT
        self.attentions = nn.ModuleList(_transformer(config, level) for _ in widths if has_text)
        self.upsamplers = nn.ModuleList([] if level == 0 else [_Resampler(width, stride=1)])

    def forward(self, x: Tensor, skips: list[Tensor], time: Tensor, text: Tensor, run: Run) -> Tensor:
        """Take skips from the end of the list."""
        for index, resnet in enumerate(self.resnets):
            x = run(resnet, torch.cat([x, skips.pop()], dim=1), time)
            if self.attentions:
                x = run(self.attentions[index], x, text)
        for upsampler in self.upsamplers:
            x = upsampler(_enlarged(x, skips[-1].shape[-2:]))
        return x


def _enlarged(x: Tensor, size: torch.Size) -> Tensor:
    """Nearest neighbours, to the size of a skip: for odd sizes that is not twice the own size."""
    return on_frames(lambda frames: F.interpolate(frames, size=tuple(size), mode="nearest"), x)
