"""The training objective: the noise of a clip's latents, predicted from text and given frames. Plain torch.

All randomness of a sample comes from one CPU generator with its seed, so the loss of a batch is the mean of the losses
of its samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mora_env_svd.clip_size import ClipSize
from mora_env_svd.errors import InputError
from mora_env_svd.frame_coder import Posterior
from mora_env_svd.seine.conditioning import MaskedFrameCoder, as_clip, fit_pictures, placed
from mora_env_svd.seine.diffusion import TRAIN_STEPS, alphas_cumprod
from mora_env_svd.seine.given_frames import given_frames
from mora_env_svd.seine.masks import frame_mask, over_pictures
from mora_env_svd.seine.models import SeineUNet


class NoiseDraw(NamedTuple):
    """The random numbers of one sample, in the order in which they are drawn."""

    mask: str
    timestep: int
    noise: Tensor  # (F, 4, h, w)
    target: Tensor  # (F, 4, h, w), to sample the target's posterior
    masked: Tensor  # (F, 4, h, w), to sample the masked clip's posterior

    @classmethod
    def of(cls, seed: int, masks: Sequence[str], size: ClipSize) -> NoiseDraw:
        """Draw what belongs to a seed. The mask is drawn even if there is only one."""
        generator = torch.Generator().manual_seed(seed)
        mask = masks[int(torch.randint(len(masks), (), generator=generator))]
        timestep = int(torch.randint(TRAIN_STEPS, (), generator=generator))
        noise, target, masked = (torch.randn(size.frame_latents_shape, generator=generator) for _ in range(3))
        return cls(mask, timestep, noise, target, masked)


def stack_texts(texts: Sequence[Tensor], z: Tensor | None, like: SeineUNet) -> Tensor:
    """Rows (L, D) of texts of one length, each followed by z (rows, D): (B, L + rows, D) of the model's dtype.

    Raises:
        InputError: a text or z has another width, or the texts have different lengths.
    """
    width = like.config.cross_attention_dim
    for name, rows in [("prompt rows", text) for text in texts] + ([] if z is None else [("z", z)]):
        if rows.ndim != 2 or rows.shape[0] < 1 or rows.shape[1] != width:
            raise InputError(f"{name}: expected (rows >= 1, {width}), got {tuple(rows.shape)}")
    if len({text.shape[0] for text in texts}) != 1:
        raise InputError(f"prompt rows: expected texts of one length, got {[text.shape[0] for text in texts]}")
    rows = torch.stack(list(texts)).to(like.device, like.dtype)
    if z is None:
        return rows
    return torch.cat([rows, z.to(like.device, like.dtype).expand(len(texts), -1, -1)], dim=1)


class TransitionObjective:
    """Losses of the UNet on clips of one size. It has no state of its own.

    Args:
        masks: training draws one for each sample. Each gives the first frame.
    """

    def __init__(self, model: SeineUNet, coder: MaskedFrameCoder, size: ClipSize, masks: Sequence[str]) -> None:
        self.model = model
        self.coder = coder
        self.size = size
        self.masks = tuple(masks)

    def loss(
        self,
        z: Tensor | None,
        texts: Sequence[Tensor],
        images: Tensor,
        targets: Sequence[Posterior],
        seeds: Sequence[int],
    ) -> Tensor:
        """Mean squared error of the predicted noise over all frames, given ones included; float32 scalar.

        Differentiable in z, in the images and in the model.

        Args:
            z: modulation rows (rows, D), or None.
            texts: encoder rows, one tensor for each sample.
            images: first frames (B, 3, h, w) in [-1, 1]; other sizes are resized as upstream does.
            targets: posterior of each target clip, mean and std (F, 4, h, w).
            seeds: one for each sample.

        Raises:
            InputError: the batch sizes differ or a shape does not fit.
        """
        self._check_batch(len(texts), images=len(images), targets=len(targets), seeds=len(seeds))
        text = stack_texts(texts, z, self.model)
        first = self.coder.posterior(fit_pictures(images, self.size))
        samples = []
        for index, (target, seed) in enumerate(zip(targets, seeds, strict=True)):
            own = Posterior(first.mean[index : index + 1], first.std[index : index + 1])
            samples.append(self._sample(NoiseDraw.of(seed, self.masks, self.size), own, target))
        inputs, noise, timesteps = (torch.cat(column) for column in zip(*samples, strict=True))
        predicted = self.model(inputs.to(self.model.dtype), timesteps, text)
        return torch.nn.functional.mse_loss(predicted.float(), noise)

    def _sample(self, draw: NoiseDraw, first: Posterior, target: Posterior) -> tuple[Tensor, Tensor, Tensor]:
        """Input channels (1, 9, F, h, w), noise (1, 4, F, h, w) and timestep (1,) of one sample, on the device."""
        device = self.coder.device
        mean, std = target.mean.to(device), target.std.to(device)
        abar = alphas_cumprod()[draw.timestep].float()
        noise = draw.noise.to(device)
        noisy = abar.sqrt() * Posterior(mean, std).scaled(draw.target) + (1.0 - abar).sqrt() * noise
        given = given_frames(draw.mask, self.size.frames)
        others = list(given[1:])
        shown = Posterior(torch.cat([first.mean, mean[others]]), torch.cat([first.std, std[others]]))
        masked = placed(self.coder.grey(self.size), shown, given, self.size.frames).scaled(draw.masked)
        mask = over_pictures(frame_mask(draw.mask, self.size.frames).to(device), *self.size.cells)
        inputs = torch.cat([as_clip(noisy), mask, as_clip(masked)], dim=1)
        return inputs, as_clip(noise), torch.tensor([draw.timestep], device=device)

    def _check_batch(self, num_texts: int, **others: int) -> None:
        wrong = {name: count for name, count in others.items() if count != num_texts}
        if num_texts < 1 or wrong:
            raise InputError(f"batch: expected as many of each as the {num_texts} texts, at least one; got {others}")
