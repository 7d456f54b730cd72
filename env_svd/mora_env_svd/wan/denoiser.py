"""One call of the transformer: the velocity of noisy latents, given text, condition and modulation rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mora_env_svd.errors import InputError
from mora_env_svd.wan.conditioning import Condition
from mora_env_svd.wan.layout import WanLayout

TRAIN_STEPS = 1000  # the timestep that means noise alone


class Denoiser:
    """The transformer of diffusers as a function.

    Args:
        model: a `WanTransformer3DModel`.
        text_length: rows of text that the model sees; zeros follow a shorter text. z follows all of these.
        low_noise: the transformer for timesteps below the layout's boundary, where there are two.
    """

    def __init__(self, model: Any, layout: WanLayout, text_length: int, low_noise: Any = None) -> None:
        self.model = model
        self.layout = layout
        self.text_length = text_length
        self._low_noise = None if low_noise is None else Denoiser(low_noise, layout, text_length)

    def at(self, timestep: Tensor) -> Denoiser:
        """The one for a timestep, 0 to 1000."""
        boundary = self.layout.boundary_ratio
        if self._low_noise is None or boundary is None or timestep >= boundary * TRAIN_STEPS:
            return self
        return self._low_noise

    @property
    def device(self) -> torch.device:
        found: torch.device = self.model.device
        return found

    def text(self, rows: Sequence[Tensor], z: Tensor | None) -> Tensor:
        """Text rows (L, D) of a batch, each padded with zeros and followed by z (rows, D): (B, length + rows, D).

        Raises:
            InputError: a text or z has another width, or a text is too long.
        """
        width = self.model.config.text_dim
        for name, each in [("prompt rows", text) for text in rows] + ([] if z is None else [("z", z)]):
            if each.ndim != 2 or each.shape[0] < 1 or each.shape[1] != width:
                raise InputError(f"{name}: expected (rows >= 1, {width}), got {tuple(each.shape)}")
        longest = max(len(text) for text in rows)
        if longest > self.text_length:
            raise InputError(f"prompt rows: expected at most {self.text_length}, got {longest}")
        padded = torch.zeros(len(rows), self.text_length, width, dtype=self.model.dtype, device=self.device)
        for index, text in enumerate(rows):
            padded[index, : len(text)] = text.to(padded)
        if z is None:
            return padded
        return torch.cat([padded, z.to(padded).expand(len(rows), -1, -1)], dim=1)

    def velocity(self, noisy: Tensor, timesteps: Tensor, text: Tensor, condition: Condition) -> Tensor:
        """Noise minus clean latents, as predicted: (B, C, f, h, w), in the model's dtype.

        Args:
            noisy: (B, C, f, h, w).
            timesteps: (B,), 0 to 1000.
            text: of `text`.
        """
        if self.layout.replaces_first:
            inputs, timesteps = self.shown(noisy, condition), self._of_tokens(timesteps, noisy)
        else:
            inputs = torch.cat([noisy, condition.latents.to(noisy)], dim=1)
        picture = None if condition.picture is None else condition.picture.to(self.device, self.model.dtype)
        found: Tensor = self.model(
            hidden_states=inputs.to(self.model.dtype),
            timestep=timesteps.to(self.device),
            encoder_hidden_states=text,
            encoder_hidden_states_image=picture,
            return_dict=False,
        )[0]
        return found

    def shown(self, latents: Tensor, condition: Condition) -> Tensor:
        """Latents whose first frame is the given one, if the layout replaces it."""
        if not self.layout.replaces_first:
            return latents
        return torch.cat([condition.latents.to(latents), latents[:, :, 1:]], dim=2)

    def _of_tokens(self, timesteps: Tensor, noisy: Tensor) -> Tensor:
        """The timestep of each token (B, tokens): 0 for those of the given first frame."""
        _, _, num_latent_frames, h, w = noisy.shape
        of_frames = timesteps.float()[:, None].repeat(1, num_latent_frames)
        of_frames[:, 0] = 0.0
        return of_frames.repeat_interleave((h // 2) * (w // 2), dim=1)
