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
) -> torch.Tensor:
    """Run the steps, the last `gradient_steps` of them with gradient; returns the latents after them.

    In an earlier step the model's prediction counts as a constant, so only the latents pass a gradient on.
    """
    samples = range(len(requests))
    first_with_gradient = len(steps) - gradient_steps
    for number in range(len(steps)):
        inputs = steps.scaled(number, latents, samples)
        with torch.set_grad_enabled(torch.is_grad_enabled() and number >= first_with_gradient):
            prediction = model.predict(requests, inputs, steps, number, settings, z)
        latents = steps.step(number, prediction, latents, samples)
    return latents
