"""Wan's autoencoder, one latent frame at a time, with normalised latents.

The autoencoder of diffusers goes through time in pieces too: one frame, then four frames for each further latent frame,
with features of earlier pieces in a cache. This does the same, in the same order, so the bits are the same. In between,
a caller can count and cancel, frames can be sent while later ones are decoded, and a piece's activations can be
computed again for the backward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d, patchify, unpatchify
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mora_env_svd.clip_pipeline import BeforePiece, nothing_before
from mora_env_svd.wan.layout import FRAMES_PER_CELL

_Cache = list[Any]  # of each causal convolution: the features that its next piece begins with


class LatentCoder:
    """Clips to normalised latents and back.

    Args:
        vae: a frozen `AutoencoderKLWan` of diffusers.
        recomputes: keep no activations of it for the backward pass, but compute them again, piece by piece.
    """

    def __init__(self, vae: Any, *, recomputes: bool = False) -> None:
        self._vae = vae
        self._recomputes = recomputes

    @property
    def device(self) -> torch.device:
        found: torch.device = next(self._vae.parameters()).device
        return found

    @property
    def _dtype(self) -> torch.dtype:
        found: torch.dtype = next(self._vae.parameters()).dtype
        return found

    def encoded(self, clip: Tensor, before_piece: BeforePiece = nothing_before) -> Tensor:
        """Normalised latents float32 (1, C, f, h, w): the mode of a clip (1, 3, F, H, W) in [-1, 1]; differentiable.

        F is 4k + 1; a picture is a clip of one frame.
        """
        pixels = clip.to(self.device, self._dtype)
        if self._vae.config.patch_size is not None:
            pixels = patchify(pixels, self._vae.config.patch_size)
        cache = _empty_cache(self._vae.encoder)
        parts = []
        for piece in (pixels[:, :, :1], *pixels[:, :, 1:].split(FRAMES_PER_CELL, dim=2)):
            if piece.shape[2] == 0:  # of a picture
                continue
            before_piece()
            part, cache = self._run(self._encode_piece, piece, cache)
            parts.append(part)
        moments = self._vae.quant_conv(torch.cat(parts, dim=2))
        mean, inverse_std = self._statistics(torch.float32)
        normalised: Tensor = (moments.chunk(2, dim=1)[0].float() - mean) * inverse_std
        return normalised

    def decoded(self, latents: Tensor) -> Iterator[Tensor]:
        """Pieces (n, 3, H, W) of the clip of normalised latents (1, C, f, h, w): one frame, then four, and so on.

        About [-1, 1], not clamped, so that no pixel is without gradient; differentiable.
        """
        mean, inverse_std = self._statistics(self._dtype)
        features = self._vae.post_quant_conv(latents.to(self.device, self._dtype) / inverse_std + mean)
        cache = _empty_cache(self._vae.decoder)
        for number, piece in enumerate(features.split(1, dim=2)):
            decode = self._decode_piece if number else self._decode_first
            part, cache = self._run(decode, piece, cache)
            if self._vae.config.patch_size is not None:
                part = unpatchify(part, self._vae.config.patch_size)
            yield part[0].transpose(0, 1)

    def _statistics(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Mean and 1 / standard deviation of the latents, (1, C, 1, 1, 1)."""
        config = self._vae.config
        mean, std = (
            torch.tensor(values).view(1, -1, 1, 1, 1).to(self.device, dtype)
            for values in (config.latents_mean, config.latents_std)
        )
        return mean, 1.0 / std

    def _encode_piece(self, piece: Tensor, cache: _Cache) -> tuple[Tensor, _Cache]:
        return self._vae.encoder(piece, feat_cache=cache, feat_idx=[0]), cache

    def _decode_first(self, piece: Tensor, cache: _Cache) -> tuple[Tensor, _Cache]:
        return self._vae.decoder(piece, feat_cache=cache, feat_idx=[0], first_chunk=True), cache

    def _decode_piece(self, piece: Tensor, cache: _Cache) -> tuple[Tensor, _Cache]:
        return self._vae.decoder(piece, feat_cache=cache, feat_idx=[0]), cache

    def _run(
        self, function: Callable[[Tensor, _Cache], tuple[Tensor, _Cache]], piece: Tensor, cache: _Cache
    ) -> tuple[Tensor, _Cache]:
        """Call a function that changes its cache with a copy, because it runs twice when activations are recomputed."""

        def call(piece: Tensor) -> tuple[Tensor, _Cache]:
            return function(piece, list(cache))

        if self._recomputes and torch.is_grad_enabled():
            found: tuple[Tensor, _Cache] = checkpoint(call, piece, use_reentrant=False)
            return found
        return call(piece)


def _empty_cache(coder: nn.Module) -> _Cache:
    return [None] * sum(isinstance(module, WanCausalConv3d) for module in coder.modules())
