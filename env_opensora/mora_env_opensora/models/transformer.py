"""`OpenSoraT2V`: the text-to-video diffusion transformer of Open-Sora-Plan v1.2 with full 3D attention."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mora_env_opensora.models.attention_bias import text_bias, video_bias
from mora_env_opensora.models.block import BlockContext, TransformerBlock, modulate
from mora_env_opensora.models.embeddings import AdaLNSingle, CaptionProjection
from mora_env_opensora.models.errors import InputError
from mora_env_opensora.models.patch_embed import PatchEmbed
from mora_env_opensora.models.pretrained import PretrainedMixin
from mora_env_opensora.models.rotary import rotary_angles, rotary_tables
from mora_env_opensora.models.transformer_config import TransformerConfig

_OUTPUT_NORM_EPS = 1e-6  # independent of the config's norm_eps, which is for the blocks


class OpenSoraT2V(PretrainedMixin, nn.Module):
    """Predicts the noise (or velocity) in a latent video from a caption.

    Parameter names are the keys of the published checkpoints (687 tensors for OpenSoraT2V-ROPE-L/122).
    """

    config: TransformerConfig
    config_class: ClassVar[type[TransformerConfig]] = TransformerConfig

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.gradient_checkpointing = False
        self.pos_embed = PatchEmbed(config)
        self.caption_projection = CaptionProjection(config.caption_channels, width)
        self.adaln_single = AdaLNSingle(width)
        self.transformer_blocks = nn.ModuleList([TransformerBlock(config) for _ in range(config.num_layers)])
        self.scale_shift_table = nn.Parameter(torch.randn(2, width) / width**0.5)
        self.proj_out = nn.Linear(width, config.patch_size**2 * config.output_channels)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Make a model with fresh weights from upstream's config keys.

        Raises:
            ConfigError: a key or value is unknown or unsupported; the message names it.
        """
        return cls(cls.config_class.parse(config))

    @property
    def dtype(self) -> torch.dtype:
        return self.proj_out.weight.dtype

    @property
    def device(self) -> torch.device:
        return self.proj_out.weight.device

    @property
    def input_channels(self) -> int:
        """Number of channels that `forward` expects."""
        return self.config.in_channels

    def forward(
        self,
        hidden_states: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        *,
        attention_mask: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        use_image_num: int = 0,
    ) -> Tensor:
        """Predict from noisy latents.

        Args:
            hidden_states: (B, C, T, H, W); with `use_image_num` = n the last n of T are independent images. Cast to
                the model's dtype. Rows beyond the last whole patch are dropped, also from the output.
            timestep: (B,) or (), integer or float.
            encoder_hidden_states: text (B, 1 + n, L, caption_channels), of the model's dtype.
            attention_mask: (B, T, H, W), 1 keep / 0 drop; None keeps all.
            encoder_attention_mask: (B, 1 + n, L), 1 keep / 0 drop; required, as upstream. Put it on the CPU
                even if the model is on a GPU: see `text_bias`.
            use_image_num: n.

        Returns:
            (B, out_channels, T, H, W) of the model's dtype.

        Raises:
            InputError: a shape does not fit; the message says which, and what was expected.
        """
        self._check(hidden_states, encoder_hidden_states, encoder_attention_mask, use_image_num)
        assert encoder_attention_mask is not None
        timestep = timestep.to(hidden_states.device).expand(hidden_states.shape[0])
        if use_image_num == 0:
            return self._predict(
                hidden_states, timestep, encoder_hidden_states[:, 0], attention_mask, encoder_attention_mask[:, 0]
            )
        return self._predict_jointly(
            hidden_states, timestep, encoder_hidden_states, attention_mask, encoder_attention_mask, use_image_num
        )

    def _predict_jointly(
        self, latents: Tensor, timestep: Tensor, text: Tensor, mask: Tensor | None, text_mask: Tensor, images: int
    ) -> Tensor:
        """A video and n images per sample: each image is an extra batch item of one frame."""
        frames = latents.shape[2] - images
        video_mask, image_mask = (None, None) if mask is None else (mask[:, :frames], mask[:, frames:])
        video = self._predict(latents[:, :, :frames], timestep, text[:, 0], video_mask, text_mask[:, 0])
        stills = self._predict(
            latents[:, :, frames:].transpose(1, 2).flatten(0, 1).unsqueeze(2),
            timestep.repeat_interleave(images),
            text[:, 1:].flatten(0, 1),
            None if image_mask is None else image_mask.flatten(0, 1).unsqueeze(1),
            text_mask[:, 1:].flatten(0, 1),
        )
        return torch.cat([video, stills.squeeze(2).unflatten(0, (-1, images)).transpose(1, 2)], dim=2)

    def _predict(
        self, latents: Tensor, timestep: Tensor, text_BLC: Tensor, mask: Tensor | None, text_mask_BL: Tensor
    ) -> Tensor:
        """All-video path: (B, C, T, H, W) -> (B, out_channels, T, h*p, w*p)."""
        config, dtype = self.config, self.dtype
        grid = (latents.shape[2], latents.shape[3] // config.patch_size, latents.shape[4] // config.patch_size)
        six, embedded = self.adaln_single(timestep)
        context = BlockContext(
            text_BLD=self.caption_projection(text_BLC),
            six_B6D=six,
            rotary=self._rotary(grid),
            video_bias=video_bias(mask, latents, config.patch_size, dtype),
            text_bias=text_bias(text_mask_BL, dtype, self.device),
        )
        x = self.embed(latents.to(dtype))
        for block in self.transformer_blocks:
            if self.gradient_checkpointing and torch.is_grad_enabled():
                x = checkpoint(block, x, context, use_reentrant=False, preserve_rng_state=False)
            else:
                x = block(x, context)
        return self._unpatchify(x, embedded, grid)

    def embed(self, latents: Tensor) -> Tensor:
        """(B, C, T, H, W) of the model's dtype -> tokens (B, N, D)."""
        return self.pos_embed(latents)

    def _rotary(self, grid: tuple[int, int, int]) -> tuple[Tensor, Tensor] | None:
        """Tables for this grid, not cached: upstream's cache confuses axes of equal length."""
        if not self.config.use_rope:
            return None
        scales, head_dim = self.config.interpolation_scales, self.config.attention_head_dim
        return rotary_tables(rotary_angles(grid, scales, head_dim, self.device), self.dtype)

    def _unpatchify(self, x_BND: Tensor, embedded_BD: Tensor, grid: tuple[int, int, int]) -> Tensor:
        # Unlike the blocks, the final modulation uses the embedding before its SiLU and linear layer.
        shift, scale = (self.scale_shift_table + embedded_BD[:, None]).chunk(2, dim=1)
        x = self.proj_out(modulate(x_BND, shift, scale, _OUTPUT_NORM_EPS))
        patch = self.config.patch_size
        x = x.unflatten(1, grid).unflatten(-1, (patch, patch, -1))  # b t h w (p_h p_w c), channel fastest
        return x.permute(0, 6, 1, 2, 4, 3, 5).flatten(5, 6).flatten(3, 4)

    def _check(self, latents: Tensor, text: Tensor, text_mask: Tensor | None, images: int) -> None:
        config, name = self.config, type(self).__name__
        if latents.ndim != 5 or latents.shape[1] != self.input_channels:
            raise InputError(
                f"{name} hidden_states: expected (B, {self.input_channels}, T, H, W), got {tuple(latents.shape)}"
            )
        if min(latents.shape[-2:]) < config.patch_size:
            raise InputError(
                f"{name} hidden_states: expected H and W of at least one patch of {config.patch_size}, "
                f"got {tuple(latents.shape[-2:])}"
            )
        if not 0 <= images < latents.shape[2]:
            raise InputError(
                f"{name} use_image_num: expected 0 to T - 1 = {latents.shape[2] - 1}, got {images}: "
                "the images share the T axis with at least one video frame"
            )
        expected = (latents.shape[0], 1 + images)
        if text.ndim != 4 or tuple(text.shape[:2]) != expected or text.shape[-1] != config.caption_channels:
            raise InputError(
                f"{name} encoder_hidden_states: expected (B, 1 + images, L, caption_channels) = "
                f"({expected[0]}, {expected[1]}, L, {config.caption_channels}), got {tuple(text.shape)}"
            )
        if text_mask is None or text_mask.shape != text.shape[:3]:
            got = None if text_mask is None else tuple(text_mask.shape)
            raise InputError(
                f"{name} encoder_attention_mask: expected (B, 1 + images, L) = {tuple(text.shape[:3])} "
                f"with 1 for rows to keep, got {got}"
            )
