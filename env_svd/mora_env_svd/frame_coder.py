"""Stable Diffusion's autoencoder on frames, each of which is encoded as a picture of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from mora_env_svd.clip_pipeline import BeforePiece, nothing_before

LATENT_SCALE = 0.18215  # latents of the diffusion model = this * a sample of the autoencoder's posterior


class Posterior(NamedTuple):
    """What the autoencoder says about pictures, unscaled: mean and standard deviation (N, 4, h, w), float32."""

    mean: Tensor
    std: Tensor

    @classmethod
    def of_moments(cls, moments: Tensor) -> Posterior:
        """From mean and log variance (N, 8, h, w)."""
        mean, log_variance = moments.float().chunk(2, dim=1)
        return cls(mean, torch.exp(0.5 * log_variance.clamp(-30.0, 20.0)))

    def scaled(self, noise: Tensor) -> Tensor:
        """A scaled sample, not the mode."""
        return LATENT_SCALE * (self.mean + self.std * noise.to(self.mean))

    def stored(self) -> dict[str, Tensor]:
        """As a target is stored: on the CPU."""
        return {name: tensor.cpu().contiguous() for name, tensor in self._asdict().items()}


class FrameCoder:
    """Encodes frames alone and decodes them in pieces.

    Args:
        vae: a frozen autoencoder of diffusers.
        chunk: number of frames that are decoded at once.
        recomputes: keep no activations of it for the backward pass, but compute them again.
    """

    def __init__(self, vae: Any, chunk: int = 1, *, recomputes: bool = False) -> None:
        self._vae = vae
        self._chunk = chunk
        self._recomputes = recomputes

    @property
    def vae(self) -> Any:
        return self._vae

    @property
    def device(self) -> torch.device:
        found: torch.device = next(self._vae.parameters()).device
        return found

    @property
    def _dtype(self) -> torch.dtype:
        found: torch.dtype = next(self._vae.parameters()).dtype
        return found

    def posterior(self, pictures: Tensor, before_each: BeforePiece = nothing_before) -> Posterior:
        """Of pictures (N, 3, H, W) in [-1, 1], each encoded alone; differentiable."""
        moments = []
        for picture in pictures.to(self.device, self._dtype).split(1):
            before_each()
            moments.append(recomputed(self._moments, picture, is_wanted=self._recomputes))
        return Posterior.of_moments(torch.cat(moments))

    def _moments(self, pictures: Tensor) -> Tensor:
        found: Tensor = self._vae.encode(pictures).latent_dist.parameters
        return found

    def pieces(self, latents: Tensor) -> tuple[Tensor, ...]:
        """Scaled latents (F, 4, h, w) as pieces (n, 4, h, w) of consecutive frames."""
        return latents.split(self._chunk)

    def decoded(self, piece: Tensor) -> Tensor:
        """The pixels (n, 3, H, W) of one piece, about [-1, 1]; differentiable."""
        unscaled = self._unscaled(piece).to(self.device, self._dtype)
        return recomputed(self._pixels, unscaled, is_wanted=self._recomputes)

    def _unscaled(self, latents: Tensor) -> Tensor:
        return latents / LATENT_SCALE

    def _pixels(self, latents: Tensor) -> Tensor:
        found: Tensor = self._vae.decode(latents).sample
        return found


def recomputed(function: Callable[[Tensor], Tensor], argument: Tensor, *, is_wanted: bool) -> Tensor:
    """The function's result. If wanted, its activations are computed again for the backward pass, and not stored."""
    if is_wanted and torch.is_grad_enabled():
        found: Tensor = checkpoint(function, argument, use_reentrant=False)
        return found
    return function(argument)
