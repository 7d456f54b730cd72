"""Serving: finished pictures in batches, by any model of pictures. Plain torch, no transport.

A sample's bytes depend only on its text, seed, picture and settings, never on the rest of the batch
(`batch_invariance`). On GPUs every sample runs alone, because kernels there are chosen by the batch size. With
`batch_invariant=False` each batch is one pass on every device, and bytes may differ from batch to batch.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import torch

from mora_env_sd3.batch_invariance import SampleBySample

OnStep = Callable[[int, int], None]  # step done, number of steps; raises to stop the whole batch
GivenUp = Callable[[], frozenset[int]]  # indices of cancelled samples
Text = TypeVar("Text")
Settings = TypeVar("Settings", contravariant=True)
Steps = TypeVar("Steps", bound="DenoisingSteps")


@dataclass(frozen=True)
class PictureRequest(Generic[Text]):
    """One sample of a batch.

    `text` is all that guides the sample, in the form that its model takes; the generator only passes it on.
    """

    text: Text
    seed: int
    picture: torch.Tensor | None = None  # (3, H, W) in [-1, 1], where the denoising starts; None = from noise only


@dataclass(frozen=True)
class GuidedText:
    """A text of most models: the embeddings of the prompt and of the other half of guidance."""

    prompt: Any
    negative: Any


class DenoisingSteps(Protocol):
    """The denoising steps of one batch, in their order; step numbers count from 0.

    `samples` are the indices in the batch of the rows in `latents`, because cancelled samples leave the batch.
    """

    def __len__(self) -> int: ...

    def part(self, number: int) -> int:
        """Which of several models predicts in this step; 0 where there is one."""

    def started(self, noise: torch.Tensor) -> torch.Tensor:
        """Noise as the first step takes it where there is no picture."""

    def noised(self, clean: torch.Tensor, noise: torch.Tensor, samples: Sequence[int]) -> torch.Tensor:
        """Clean latents and noise, mixed as the first step expects."""

    def scaled(self, number: int, latents: torch.Tensor, samples: Sequence[int]) -> torch.Tensor:
        """Latents as the model takes them in this step."""

    def step(
        self, number: int, prediction: torch.Tensor, latents: torch.Tensor, samples: Sequence[int]
    ) -> torch.Tensor:
        """Latents after this step, from those before it and the model's prediction."""


class PictureModel(Protocol[Text, Settings, Steps]):
    """What the generator needs of a model. Every row of a result depends only on the same row of the arguments."""

    @property
    def device(self) -> torch.device: ...

    def initial_latents(self, seeds: Sequence[int], settings: Settings) -> torch.Tensor:
        """Noise (B, C, h, w) in the model's dtype, one sample for each seed."""

    def steps(self, settings: Settings, latents: torch.Tensor, seeds: Sequence[int], strength: float) -> Steps:
        """The steps of a batch with these latents and seeds: the last ones at a strength below 1."""

    def predict(
        self,
        requests: Sequence[PictureRequest[Text]],
        inputs: torch.Tensor,
        steps: Steps,
        number: int,
        settings: Settings,
        z: torch.Tensor | None,
    ) -> torch.Tensor:
        """The model's guided prediction in step `number` for `inputs`, which `DenoisingSteps.scaled` gave."""

    def text_shape(self, text: Text, settings: Settings) -> tuple[int, ...]:
        """What a text and guidance add to the shapes in `predict`: texts with the same value can be in one batch."""

    def encode(self, pixels: torch.Tensor, seeds: Sequence[int]) -> torch.Tensor:
        """Pictures (B, 3, H, W) in [-1, 1] to latents; each seed draws one sample of the posterior."""

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents to pictures (B, 3, H, W) float32, about [-1, 1]."""


class ImageGenerator(Generic[Text, Settings, Steps]):
    """Denoises batches and decodes them.

    Args:
        batch_invariant: give a sample the same bytes in any batch.
    """

    def __init__(self, model: PictureModel[Text, Settings, Steps], *, batch_invariant: bool = True) -> None:
        self._model = model
        self._is_invariant = batch_invariant
        self._runs_alone = batch_invariant and model.device.type != "cpu"
        self._checked: dict[tuple[int, ...], bool] = {}

    @torch.no_grad()
    def generate(
        self,
        requests: Sequence[PictureRequest[Text]],
        settings: Settings,
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
        seeds = [request.seed for request in requests]
        latents = self._model.initial_latents(seeds, settings)
        steps = self._model.steps(settings, latents, seeds, strength)
        if requests[0].picture is not None:
            latents = self._noised(requests, latents, steps, lambda: on_step(0, len(steps)))
        else:
            latents = steps.started(latents)
        indices = list(range(len(requests)))
        on_step(0, len(steps))
        for number in range(len(steps)):
            indices, latents = self._without(given_up(), indices, latents)
            if not indices:
                return {}
            inputs = steps.scaled(number, latents, indices)
            prediction = self._prediction([requests[index] for index in indices], inputs, steps, number, settings, z)
            latents = steps.step(number, prediction, latents, indices)
            on_step(number + 1, len(steps))
        indices, latents = self._without(given_up(), indices, latents)
        return self._decoded(indices, latents, lambda: on_step(len(steps), len(steps)), given_up)

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
            images = self._model.decode(latents[part])
            pictures |= {index: _to_uint8(image) for index, image in zip(indices[part], images, strict=True)}
        return pictures

    def _parts(self, num_samples: int) -> list[slice]:
        """The samples that the autoencoder takes at once."""
        size = 1 if self._is_invariant else max(1, num_samples)
        return [slice(start, start + size) for start in range(0, num_samples, size)]

    def _noised(
        self,
        requests: Sequence[PictureRequest[Text]],
        noise: torch.Tensor,
        steps: Steps,
        tell: Callable[[], None],
    ) -> torch.Tensor:
        """Latents of the pictures with each sample's noise, mixed as the first step expects."""
        pictures = [request.picture for request in requests if request.picture is not None]
        assert len(pictures) == len(requests), "a batch starts either from pictures or from noise"
        indices = range(len(requests))
        seeds = [posterior_seed(request.seed) for request in requests]
        latents = []
        for part in self._parts(len(requests)):
            tell()
            clean = self._model.encode(torch.stack(pictures[part]), seeds[part]).to(noise)
            latents.append(steps.noised(clean, noise[part], indices[part]))
        return torch.cat(latents)

    @staticmethod
    def _without(gone: frozenset[int], indices: list[int], latents: torch.Tensor) -> tuple[list[int], torch.Tensor]:
        if not gone.intersection(indices):
            return indices, latents
        rows = [row for row, index in enumerate(indices) if index not in gone]
        return [indices[row] for row in rows], latents[rows]

    def _prediction(
        self,
        requests: Sequence[PictureRequest[Text]],
        inputs: torch.Tensor,
        steps: Steps,
        number: int,
        settings: Settings,
        z: torch.Tensor | None,
    ) -> torch.Tensor:
        """One model call for the batch, or one per sample if a batch would give other bits."""

        def call(rows: slice) -> torch.Tensor:
            with SampleBySample() if self._is_invariant else contextlib.nullcontext():
                return self._model.predict(requests[rows], inputs[rows], steps, number, settings, z)

        whole = slice(0, len(requests))
        if not self._is_invariant:
            return call(whole)
        if len(requests) > 1 and not self._runs_alone:
            num_rows = 0 if z is None else len(z)
            text = self._model.text_shape(requests[0].text, settings)
            shape = (steps.part(number), len(requests), *inputs.shape[1:], *text, num_rows)
            if self._checked.get(shape) is not False:
                together = call(whole)
                if shape not in self._checked:
                    self._checked[shape] = torch.equal(call(slice(0, 1))[0], together[0])
                if self._checked[shape]:
                    return together
        return torch.cat([call(slice(row, row + 1)) for row in range(len(requests))])


def posterior_seed(seed: int) -> int:
    """Seed of the posterior sample of a sample's picture, so that it does not repeat the initial noise."""
    return seed ^ 0x696D67


def _to_uint8(image: torch.Tensor) -> torch.Tensor:
    return ((image + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0)
