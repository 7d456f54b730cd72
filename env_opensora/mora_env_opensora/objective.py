"""The training objective of the video model, from plain tensors to a scalar. It needs only torch.

The agent and tests in another environment call `VideoObjective` in the same way. All randomness of a sample comes from
one generator with that sample's seed, so the loss of any batch is the mean of the losses of its samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from mora_env_opensora.conditioning import (
    LATENT_SCALE,
    ClipSize,
    fit_image,
    frame_mask,
    latent_mask,
    masked_latents,
    place_frames,
)
from mora_env_opensora.models import CausalVAEModel, InputError, OpenSoraInpaint, OpenSoraT2V
from mora_env_opensora.noise_schedule import TRAIN_STEPS, NoiseSchedule, PredictionType

_GIVEN = (0,)  # indices of the frames that training conditions on


@dataclass(frozen=True)
class LossSettings:
    """The published i2v recipe by default."""

    prediction_type: PredictionType = "epsilon"
    snr_gamma: float | None = 5.0
    noise_offset: float = 0.02


class Target(NamedTuple):
    """Posterior of a target clip: mean and standard deviation (4, T, h, w) from the autoencoder, unscaled."""

    mean: Tensor
    std: Tensor


class TextBatch(NamedTuple):
    """rows (B, 1, L, C) of the model's dtype and device; mask float32 (B, 1, L), 1 = keep, on the CPU."""

    rows: Tensor
    mask: Tensor


def stack_texts(texts: Sequence[Tensor], z: Tensor | None, like: OpenSoraT2V) -> TextBatch:
    """Rows (L_b, C) of several texts, padded to the longest with mask 0, each followed by z (rows, C) with mask 1.

    Cross-attention has no positions and gives masked rows a weight of exactly 0, so place and length of the padding
    do not change the result.

    Raises:
        InputError: a text is not (L >= 1, C) of the model's caption width, or z is not (rows, C).
    """
    width = like.config.caption_channels
    for name, rows in [("prompt rows", text) for text in texts] + ([] if z is None else [("z", z)]):
        if rows.ndim != 2 or rows.shape[0] < 1 or rows.shape[1] != width:
            raise InputError(f"{name}: expected (rows >= 1, {width}), got {tuple(rows.shape)}")
    longest = max(text.shape[0] for text in texts)
    rows = torch.stack([torch.nn.functional.pad(text, (0, 0, 0, longest - text.shape[0])) for text in texts])
    mask = torch.stack([(torch.arange(longest) < text.shape[0]).float() for text in texts])
    rows = rows.to(like.device, like.dtype)
    if z is not None:
        rows = torch.cat([rows, z.to(like.device, like.dtype).expand(len(texts), -1, -1)], dim=1)
        mask = torch.cat([mask, mask.new_ones(len(texts), z.shape[0])], dim=1)
    return TextBatch(rows[:, None], mask[:, None])


class NoiseDraw(NamedTuple):
    """The random numbers of one training step, stacked over the batch."""

    timesteps: Tensor  # int64 (B,)
    noise: Tensor  # (B, 4, T, h, w), offset included
    target: Tensor  # (B, 4, T, h, w), to sample the target's posterior
    condition: Tensor  # (B, 4, T, h, w), to sample the masked clip's posterior


def draw_noise(generators: Sequence[torch.Generator], shape: tuple[int, ...], settings: LossSettings) -> NoiseDraw:
    """Draw each sample's randomness from its own CPU generator: timestep, noise, offset, two posterior noises."""
    draws = []
    for generator in generators:
        timestep = torch.randint(0, TRAIN_STEPS, (), generator=generator)
        noise = torch.randn(shape, generator=generator)
        offset = torch.randn((shape[0], 1, 1, 1), generator=generator)
        target, condition = (torch.randn(shape, generator=generator) for _ in range(2))
        draws.append((timestep, noise + settings.noise_offset * offset, target, condition))
    return NoiseDraw(*(torch.stack(column) for column in zip(*draws, strict=True)))


@dataclass
class DenoisingLoss:
    """The weighted squared error of one denoising prediction, in float32."""

    settings: LossSettings = field(default_factory=LossSettings)
    schedule: NoiseSchedule = field(default_factory=NoiseSchedule)

    def __call__(
        self,
        model: OpenSoraT2V,
        clean: Tensor,
        noise: Tensor,
        timesteps: Tensor,
        text: TextBatch,
        *,
        condition: Tensor | None = None,
        attention_mask: Tensor | None = None,
    ) -> Tensor:
        """The scalar loss of a batch.

        Args:
            clean: scaled latents (B, 4, T, h, w).
            noise: same shape, offset included.
            timesteps: int64 (B,).
            condition: further input channels (B, C', T, h, w) of the inpaint model.
            attention_mask: (B, T, h, w), 1 for cells of the clip and 0 for padding, which is not counted.
                None counts all cells.
        """
        settings = self.settings
        noisy = self.schedule.add_noise(clean, noise, timesteps)
        inputs = noisy if condition is None else torch.cat([noisy, condition.to(noisy)], dim=1)
        prediction = model(
            inputs, timesteps, text.rows, attention_mask=attention_mask, encoder_attention_mask=text.mask
        )
        target = self.schedule.target(settings.prediction_type, clean, noise, timesteps)
        weight = self.schedule.min_snr_weight(settings.prediction_type, settings.snr_gamma, timesteps)
        error = weight.view(-1, 1, 1, 1, 1) * (prediction.float() - target.float()) ** 2
        if attention_mask is None or bool(attention_mask.bool().all()):
            return error.mean()
        counted = attention_mask.float()[:, None].expand_as(error)
        return (counted * error).sum() / counted.sum()


class VideoObjective:
    """Losses of the inpaint model on clips of one size. It has no state; the caller freezes the autoencoder."""

    def __init__(
        self, model: OpenSoraInpaint, vae: CausalVAEModel, size: ClipSize, settings: LossSettings | None = None
    ) -> None:
        self.model = model
        self.vae = vae
        self.size = size
        self.denoising = DenoisingLoss(settings or LossSettings())

    def loss(
        self,
        z: Tensor | None,
        texts: Sequence[Tensor],
        images: Tensor,
        targets: Sequence[Target],
        seeds: Sequence[int],
    ) -> Tensor:
        """Mean denoising loss of target clips whose first frame is conditioned on `images`.

        Args:
            z: modulation rows (rows, C) float32, or None.
            texts: encoder rows (L_b, C), one tensor per prompt.
            images: (B, 3, H, W) in [-1, 1]; other sizes are scaled to cover and cropped at the centre.
            targets: posterior of each target clip.
            seeds: one per sample, for its timestep, noise and posterior samples.

        Returns:
            float32 scalar, differentiable with respect to z, images and the model's parameters.

        Raises:
            InputError: the batch sizes differ or a shape does not fit.
        """
        self._check_batch(len(texts), images=images.shape[0], targets=len(targets), seeds=len(seeds))
        draw = self._draw([torch.Generator().manual_seed(seed) for seed in seeds])
        fitted = fit_image(images.to(self.vae.device), self.size.height, self.size.width)
        return self._loss(z, texts, fitted, targets, draw)

    def _draw(self, generators: Sequence[torch.Generator]) -> NoiseDraw:
        draw = draw_noise(generators, self.size.latent_shape, self.denoising.settings)
        return NoiseDraw(*(tensor.to(self.model.device) for tensor in draw))

    def _loss(
        self,
        z: Tensor | None,
        texts: Sequence[Tensor],
        first_frames: Tensor,
        targets: Sequence[Target],
        draw: NoiseDraw,
    ) -> Tensor:
        text = stack_texts(texts, z, self.model)
        mean = torch.stack([target.mean for target in targets]).to(draw.noise)
        std = torch.stack([target.std for target in targets]).to(draw.noise)
        if tuple(mean.shape[1:]) != self.size.latent_shape or std.shape != mean.shape:
            raise InputError(
                f"targets: expected mean and std of {self.size.latent_shape}, "
                f"got {tuple(mean.shape[1:])} and {tuple(std.shape[1:])}"
            )
        clean = LATENT_SCALE * (mean + std * draw.target)
        masked_clip = place_frames([first_frames], _GIVEN, self.size.frames)
        given = masked_latents(self.vae, masked_clip, draw.condition, given=_GIVEN).to(draw.noise)
        mask_BF = frame_mask(self.size.frames, _GIVEN).expand(len(texts), -1)
        mask = latent_mask(mask_BF.to(draw.noise), *self.size.latent_shape[-2:])
        condition = torch.cat([given, mask], dim=1)
        return self.denoising(self.model, clean, draw.noise, draw.timesteps, text, condition=condition)

    @staticmethod
    def _check_batch(texts: int, **others: int) -> None:
        wrong = {name: count for name, count in others.items() if count != texts}
        if texts < 1 or wrong:
            raise InputError(f"batch: expected as many of each as the {texts} texts, at least one; got {others}")
