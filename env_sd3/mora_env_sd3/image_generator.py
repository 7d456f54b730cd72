"""Serving: finished pictures in batches, from text, or from a picture and text. Plain torch, no transport.

A sample's bytes depend only on its prompt, seed, picture and settings, never on the rest of the batch
(`batch_invariance`). On GPUs every sample runs alone, because kernels there are chosen by the batch size. With
`batch_invariant=False` each batch is one pass on every device, and bytes may differ from batch to batch.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from mora_env_sd3.batch_invariance import SampleBySample
from mora_env_sd3.image_to_image import posterior_seed
from mora_env_sd3.renderer import Renderer, RenderSettings
from mora_env_sd3.text_encoders import TextEmbedding

OnStep = Callable[[int, int], None]  # step done, number of steps; raises to stop the whole batch
GivenUp = Callable[[], frozenset[int]]  # indices of cancelled samples


@dataclass(frozen=True)
class PictureRequest:
    """One sample of a batch."""

    prompt: TextEmbedding
    negative: TextEmbedding
    seed: int
    picture: torch.Tensor | None = None  # (3, H, W) in [-1, 1]; None = from noise only


class ImageGenerator:
    """Denoises batches and decodes them.

    Args:
        batch_invariant: give a sample the same bytes in any batch.
    """

    def __init__(self, renderer: Renderer, *, batch_invariant: bool = True) -> None:
        self._renderer = renderer
        self._is_invariant = batch_invariant
        self._runs_alone = batch_invariant and renderer.transformer.device.type != "cpu"
        self._checked: dict[tuple[int, ...], bool] = {}

    @torch.no_grad()
    def generate(
        self,
        requests: Sequence[PictureRequest],
        settings: RenderSettings,
        *,
        strength: float,
        z: torch.Tensor | None,
        on_step: OnStep,
        given_up: GivenUp,
    ) -> dict[int, torch.Tensor]:
        """Finished uint8 pictures (H, W, 3) by index in the batch, without samples cancelled meanwhile.

        Args:
            strength: share of the denoising steps that run over the given pictures; 1 without pictures.
            on_step: called after every step, and again, with the same number, before each piece that the autoencoder
                encodes or decodes; all samples of the batch take the same steps.
        """
        renderer = self._renderer
        seeds = [request.seed for request in requests]
        latents = renderer.initial_latents(seeds, settings)
        scheduler, timesteps = renderer.schedule(settings, latents, strength)
        if requests[0].picture is not None:
            latents = self._noised(requests, latents, scheduler, timesteps[:1], lambda: on_step(0, len(timesteps)))
        indices = list(range(len(requests)))
        on_step(0, len(timesteps))
        for number, timestep in enumerate(timesteps, start=1):
            indices, latents = self._without(given_up(), indices, latents)
            if not indices:
                return {}
            velocity = self._velocity([requests[index] for index in indices], latents, timestep, settings, z)
            latents = scheduler.step(velocity, timestep, latents, return_dict=False)[0]
            on_step(number, len(timesteps))
        indices, latents = self._without(given_up(), indices, latents)
        return self._decoded(indices, latents, lambda: on_step(len(timesteps), len(timesteps)), given_up)

    def _decoded(
        self, indices: list[int], latents: torch.Tensor, tell: Callable[[], None], given_up: GivenUp
    ) -> dict[int, torch.Tensor]:
        """Pictures by index; those that are cancelled before their turn are left out."""
        pictures: dict[int, torch.Tensor] = {}
        for part in self._parts(len(indices)):
            tell()
            gone = given_up()
            if all(index in gone for index in indices[part]):
                continue
            images = self._renderer.decode(latents[part])
            pictures |= {index: _to_uint8(image) for index, image in zip(indices[part], images, strict=True)}
        return pictures

    def _parts(self, num_samples: int) -> list[slice]:
        """The samples that the autoencoder takes at once."""
        size = 1 if self._is_invariant else max(1, num_samples)
        return [slice(start, start + size) for start in range(0, num_samples, size)]

    def _noised(
        self,
        requests: Sequence[PictureRequest],
        noise: torch.Tensor,
        scheduler: object,
        timestep: torch.Tensor,
        tell: Callable[[], None],
    ) -> torch.Tensor:
        """Latents of the pictures with each sample's noise, mixed as the first step expects."""
        pictures = [request.picture for request in requests if request.picture is not None]
        assert len(pictures) == len(requests), "a batch starts either from pictures or from noise"
        seeds = [posterior_seed(request.seed) for request in requests]
        latents = []
        for part in self._parts(len(requests)):
            tell()
            clean = self._renderer.encode(torch.stack(pictures[part]), seeds[part]).to(noise)
            noised = scheduler.scale_noise(clean, timestep, noise[part])  # type: ignore[attr-defined]
            latents.append(noised)
        return torch.cat(latents)

    @staticmethod
    def _without(gone: frozenset[int], indices: list[int], latents: torch.Tensor) -> tuple[list[int], torch.Tensor]:
        if not gone.intersection(indices):
            return indices, latents
        rows = [row for row, index in enumerate(indices) if index not in gone]
        return [indices[row] for row in rows], latents[rows]

    def _velocity(
        self,
        requests: Sequence[PictureRequest],
        latents: torch.Tensor,
        timestep: torch.Tensor,
        settings: RenderSettings,
        z: torch.Tensor | None,
    ) -> torch.Tensor:
        """One model call for the batch, or one per sample if a batch would give other bits."""
        if not self._is_invariant:
            return self._call(requests, latents, timestep, settings, z)
        if len(requests) > 1 and not self._runs_alone:
            shape = (len(requests), *latents.shape[1:], requests[0].prompt.joint.shape[0])
            if self._checked.get(shape) is not False:
                together = self._call(requests, latents, timestep, settings, z)
                if shape not in self._checked:
                    alone = self._call(requests[:1], latents[:1], timestep, settings, z)
                    self._checked[shape] = torch.equal(alone[0], together[0])
                if self._checked[shape]:
                    return together
        rows = range(len(requests))
        return torch.cat([self._call([requests[i]], latents[i : i + 1], timestep, settings, z) for i in rows])

    def _call(
        self,
        requests: Sequence[PictureRequest],
        latents: torch.Tensor,
        timestep: torch.Tensor,
        settings: RenderSettings,
        z: torch.Tensor | None,
    ) -> torch.Tensor:
        prompts = [request.prompt for request in requests]
        joint, pooled = self._renderer.condition(z, prompts, requests[0].negative, settings)
        with SampleBySample() if self._is_invariant else contextlib.nullcontext():
            return self._renderer.velocity(latents, timestep, joint, pooled, settings.guidance_scale)


def _to_uint8(image: torch.Tensor) -> torch.Tensor:
    return ((image + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0)
