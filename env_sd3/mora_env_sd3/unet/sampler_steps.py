"""The denoising steps of a batch with any scheduler of diffusers that a UNet's pipeline takes.

Every sample has a scheduler and a generator of its own: some schedulers remember earlier predictions or draw noise in
each step, and a sample that leaves the batch takes its own along. Timesteps stay on the CPU, where schedulers look them
up, so that no step waits for the device.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from typing import Any

import torch

from mora_env_sd3.steps import steps_over_picture

_STEP_NOISE = 0x73746570  # keeps the noise of the steps apart from the initial noise of the same seed


class SamplerSteps:
    """Steps `first` to `end` of one schedule.

    Args:
        scheduler: a scheduler of diffusers; only its configuration is used, not its state.
        num_inference_steps: of the whole schedule.
        seeds: of the samples.
        first, end: indices in the scheduler's timesteps; None = to the last one.
    """

    def __init__(
        self, scheduler: Any, num_inference_steps: int, seeds: Sequence[int], *, first: int = 0, end: int | None = None
    ) -> None:
        own = with_timesteps(scheduler, num_inference_steps)
        if hasattr(own, "set_begin_index"):  # schedulers without it look every timestep up
            own.set_begin_index(first)
        self.timesteps: torch.Tensor = own.timesteps[first:end]
        self.scheduler = own
        self._schedulers = [copy.deepcopy(own) for _ in seeds]
        self._draws_noise = "generator" in inspect.signature(own.step).parameters
        self._generators = [torch.Generator().manual_seed(seed ^ _STEP_NOISE) for seed in seeds]

    def __len__(self) -> int:
        return len(self.timesteps)

    def part(self, number: int) -> int:
        """There is one model."""
        return 0

    def started(self, noise: torch.Tensor) -> torch.Tensor:
        """Noise, scaled as the first step of a whole schedule expects it."""
        return noise * self.scheduler.init_noise_sigma

    def noised(self, clean: torch.Tensor, noise: torch.Tensor, samples: Sequence[int]) -> torch.Tensor:
        """Clean latents and noise, mixed as the first of these steps expects."""
        mixed: torch.Tensor = self.scheduler.add_noise(clean, noise, self.timesteps[:1].repeat(len(clean)))
        return mixed

    def scaled(self, number: int, latents: torch.Tensor, samples: Sequence[int]) -> torch.Tensor:
        """Latents as the model takes them in this step."""
        rows = zip(samples, latents.split(1), strict=True)
        return torch.cat(
            [self._schedulers[index].scale_model_input(row, self.timesteps[number]) for index, row in rows]
        )

    def step(
        self, number: int, prediction: torch.Tensor, latents: torch.Tensor, samples: Sequence[int]
    ) -> torch.Tensor:
        """Latents after step `number`."""
        rows = zip(samples, prediction.split(1), latents.split(1), strict=True)
        return torch.cat([self._stepped(index, number, predicted, before) for index, predicted, before in rows])

    def _stepped(self, index: int, number: int, prediction: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        noise = {"generator": self._generators[index]} if self._draws_noise else {}
        step = self._schedulers[index].step
        after: torch.Tensor = step(prediction, self.timesteps[number], latents, return_dict=False, **noise)[0]
        return after


def with_timesteps(scheduler: Any, num_inference_steps: int) -> Any:
    """A fresh scheduler of the same configuration, with its timesteps set."""
    fresh = type(scheduler).from_config(scheduler.config)
    fresh.set_timesteps(num_inference_steps)
    return fresh


def first_over_picture(scheduler: Any, num_inference_steps: int, strength: float) -> int:
    """The index of the first timestep that runs over a given picture, as diffusers counts them."""
    skipped = num_inference_steps - steps_over_picture(num_inference_steps, strength)
    return skipped * int(scheduler.order)
