"""The denoising steps of a base model and of a refiner after it, as one sequence.

diffusers does the same with `denoising_end` in the base model's pipeline and `denoising_start` in the refiner's. A
strength below 1 skips the first steps of the whole sequence, which may be all of the base model's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from mora_env_sd3.unet.sampler_steps import SamplerSteps, first_over_picture, with_timesteps

_REFINER_STREAM = 0x72656669  # the refiner's steps draw other noise than the base model's


class XlSteps:
    """Steps of the base model, then steps of the refiner; either may have none."""

    def __init__(self, base: SamplerSteps, refiner: SamplerSteps | None = None) -> None:
        self._base = base
        self._refiner = refiner
        self.num_base = len(base)

    @classmethod
    def of(
        cls,
        base: Any,
        refiner: Any | None,
        num_inference_steps: int,
        seeds: Sequence[int],
        strength: float,
        high_noise_share: float,
    ) -> XlSteps:
        """The steps by the schedulers `base` and `refiner`, which takes over below a share of the timesteps."""
        first = first_over_picture(base, num_inference_steps, strength)
        if refiner is None:
            return cls(SamplerSteps(base, num_inference_steps, seeds, first=first))
        end = _num_high(base, num_inference_steps, high_noise_share)
        own = SamplerSteps(base, num_inference_steps, seeds, first=first, end=max(first, end))
        start = _num_high(refiner, num_inference_steps, high_noise_share)
        if refiner.order == 2 and start % 2:  # the refiner's number of steps must be odd: each but the first is double
            start -= 1
        start = max(start, first_over_picture(refiner, num_inference_steps, strength))
        other = [seed ^ _REFINER_STREAM for seed in seeds]
        return cls(own, SamplerSteps(refiner, num_inference_steps, other, first=start))

    def __len__(self) -> int:
        return self.num_base + (0 if self._refiner is None else len(self._refiner))

    def part(self, number: int) -> int:
        """0 for a step of the base model, 1 for one of the refiner."""
        return int(number >= self.num_base)

    def timestep(self, number: int) -> torch.Tensor:
        """The timestep of this step, on the CPU."""
        part, own = self._own(number)
        return part.timesteps[own]

    def started(self, noise: torch.Tensor) -> torch.Tensor:
        """Noise, scaled as the first step expects it."""
        return self._own(0)[0].started(noise)

    def noised(self, clean: torch.Tensor, noise: torch.Tensor, samples: Sequence[int]) -> torch.Tensor:
        """Clean latents and noise, mixed as the first step expects."""
        return self._own(0)[0].noised(clean, noise, samples)

    def scaled(self, number: int, latents: torch.Tensor, samples: Sequence[int]) -> torch.Tensor:
        """Latents as the model takes them in this step."""
        part, own = self._own(number)
        return part.scaled(own, latents, samples)

    def step(
        self, number: int, prediction: torch.Tensor, latents: torch.Tensor, samples: Sequence[int]
    ) -> torch.Tensor:
        """Latents after step `number`."""
        part, own = self._own(number)
        return part.step(own, prediction, latents, samples)

    def _own(self, number: int) -> tuple[SamplerSteps, int]:
        if self._refiner is not None and self.part(number):
            return self._refiner, number - self.num_base
        return self._base, number


def _num_high(scheduler: Any, num_inference_steps: int, high_noise_share: float) -> int:
    """How many timesteps of the schedule are the base model's."""
    num_train = scheduler.config.num_train_timesteps
    cutoff = round(num_train - high_noise_share * num_train)
    timesteps = with_timesteps(scheduler, num_inference_steps).timesteps
    return int((timesteps >= cutoff).sum())
