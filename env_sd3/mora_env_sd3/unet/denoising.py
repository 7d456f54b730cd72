"""All steps of a micro-batch, with gradient through the last ones. Plain torch."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from mora_env_sd3.image_generator import PictureModel, PictureRequest, Settings, Steps, Text


def denoise(
    model: PictureModel[Text, Settings, Steps],
    requests: Sequence[PictureRequest[Text]],
    latents: torch.Tensor,
    steps: Steps,
    settings: Settings,
    z: torch.Tensor | None,
    *,
    gradient_steps: int,
    end: int | None = None,
) -> torch.Tensor:
    """Run the steps, and return the latents after them.

    Args:
        gradient_steps: number of steps with gradient. In any other step the model's prediction counts as a constant, so
            only the latents pass a gradient on.
        end: number of the step after those with gradient; None = they are the last ones.
    """
    last = len(steps) if end is None else end
    with_gradient = range(last - gradient_steps, last)
    samples = range(len(requests))
    for number in range(len(steps)):
        inputs = steps.scaled(number, latents, samples)
        with torch.set_grad_enabled(torch.is_grad_enabled() and number in with_gradient):
            prediction = model.predict(requests, inputs, steps, number, settings, z)
        latents = steps.step(number, prediction, latents, samples)
    return latents
