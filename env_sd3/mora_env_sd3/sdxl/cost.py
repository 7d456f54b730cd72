"""Memory and operations of SDXL's agent, counted on the meta device."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch
from mora_environment.cost import AgentCost, CostRequest, in_sequence
from mora_environment.cost_meter import measured_call, with_trained_counts
from mora_training.trainable import select_trainable

from mora_env_sd3.image_generator import GuidedText, PictureRequest
from mora_env_sd3.pictures.picture_agent import DTYPES
from mora_env_sd3.sdxl import published
from mora_env_sd3.sdxl.options import SdxlOptions
from mora_env_sd3.sdxl.renderer import XlNegative, XlRenderer, XlSettings
from mora_env_sd3.sdxl.sized_models import sized_renderer
from mora_env_sd3.sdxl.text_encoders import XlEmbedding

_META = torch.device("meta")


def sdxl_cost(options: SdxlOptions, request: CostRequest) -> AgentCost:
    """Return what the agent costs with these options."""
    pictures = _Pictures(options, request)
    unet = pictures.renderer.base.unet
    has_backward = request.trains or request.passes_gradient or request.num_rows > 0
    # the steps of a model are all alike, so one stands for those that `step` does not run
    parts = pictures.parts()
    predictions = [measured_call(partial(pictures.predict, part.first), with_backward=False) for part in parts]
    step = measured_call(pictures.step, modules=[unet], with_backward=has_backward)
    forward = step.forward
    for part, prediction in zip(parts, predictions, strict=True):
        forward += prediction.repeated(part.num_left_out).forward * request.batch_size
    step = step.model_copy(update={"forward": forward})
    denoising = [each.repeated(part.num_steps) for part, each in zip(parts, predictions, strict=True)]
    decoding = measured_call(pictures.decode, with_backward=False)
    return with_trained_counts(AgentCost(step=step, sample=in_sequence(*denoising, decoding)), unet)


class _Part(NamedTuple):
    """The steps of one model."""

    first: int  # number of its first step
    num_steps: int
    num_left_out: int  # steps that `_Pictures.step` does not run; they have no gradient


class _Pictures:
    """The calls of the agent, with models and inputs that have shapes but no values."""

    def __init__(self, options: SdxlOptions, request: CostRequest) -> None:
        self._options = options
        self._request = request
        self._dtype = DTYPES[options.dtype]
        self.renderer = sized_renderer(options, _META)
        with _META:  # where adapters are made
            select_trainable(self.renderer.base.unet, request.trainable)
        self._settings = XlSettings(
            height=options.height,
            width=options.width,
            num_inference_steps=options.num_inference_steps,
            guidance_scale=options.guidance_scale,
            gradient_steps=None if options.gradient_steps == "all" else options.gradient_steps,
        )
        self._steps = self.renderer.steps(self._settings, self._latents(), [0], 1.0)
        num_base, num_refined = self._steps.num_base, len(self._steps) - self._steps.num_base
        # Without `all`, gradient goes through the base model's last steps only, so `step` runs these and one before.
        self._runs_all = self._settings.gradient_steps is None
        self._num_run = num_base if self._runs_all else min((self._settings.gradient_steps or 0) + 1, num_base)
        self._num_steps = (num_base, num_refined)

    def parts(self) -> list[_Part]:
        """Of each model that takes part, its steps."""
        num_base, num_refined = self._num_steps
        left_out = 0 if self._runs_all else num_refined
        parts = [_Part(0, num_base, num_base - self._num_run), _Part(num_base, num_refined, left_out)]
        return [part for part in parts if part.num_steps]

    def step(self) -> torch.Tensor:
        """`forward`, with the agent's own loss if it adds one."""
        size = self._request.batch_size
        texts, seeds, z = [self._text() for _ in range(size)], list(range(size)), self._z()
        renderer, settings = self.renderer, self._settings
        if not self._runs_all:
            renderer = XlRenderer(renderer.base, renderer.autoencoder)
            settings = replace(settings, num_inference_steps=self._num_run)
        images = renderer.render(z, texts, seeds, settings)
        if not self._request.adds_loss:
            return images
        frames = torch.empty(size, 3, self._options.height, self._options.width, device=_META)
        prompts = [text.prompt for text in texts]
        return images.mean() + self.renderer.own_loss(z, prompts, frames, seeds, self._settings)

    def predict(self, number: int) -> torch.Tensor:
        """One denoising step of one picture."""
        requests = [PictureRequest(self._text(), 0)]
        return self.renderer.predict(requests, self._latents(), self._steps, number, self._settings, self._z())

    def decode(self) -> torch.Tensor:
        return self.renderer.decode(self._latents())

    def _latents(self) -> torch.Tensor:
        return self.renderer.initial_latents([0], self._settings)

    def _text(self) -> GuidedText:
        negative = self._embedding()
        return GuidedText(self._embedding(), XlNegative(negative, negative))

    def _embedding(self) -> XlEmbedding:
        config = self.renderer.base.unet.config
        pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
        rows = torch.empty(published.TEXT_LENGTH, config.cross_attention_dim, device=_META, dtype=self._dtype)
        return XlEmbedding(rows, torch.empty(pooled, device=_META, dtype=self._dtype))

    def _z(self) -> torch.Tensor | None:
        rows, width = self._request.num_rows, self.renderer.base.unet.config.cross_attention_dim
        return torch.empty(rows, width, device=_META, requires_grad=self._request.trains) if rows else None
