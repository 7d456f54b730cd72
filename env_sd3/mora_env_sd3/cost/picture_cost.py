"""Memory and operations of the Stable Diffusion 3 agents, counted on the meta device."""

from __future__ import annotations

from dataclasses import replace

import torch
from mora_environment.cost import AgentCost, CallCost, CostRequest, in_sequence
from mora_environment.cost_meter import measured_call, with_trained_counts
from mora_training.trainable import select_trainable

from mora_env_sd3.cost import published
from mora_env_sd3.cost.sized_models import DTYPES, sized_renderer
from mora_env_sd3.image_to_image import ImageToImageRenderer
from mora_env_sd3.options import Sd3ImageToImageOptions, Sd3Options
from mora_env_sd3.renderer import RenderSettings
from mora_env_sd3.text_encoders import TextEmbedding

_META = torch.device("meta")


def picture_cost(options: Sd3Options, request: CostRequest) -> AgentCost:
    """Return what the agent costs with these options, with the longest prompts that they allow."""
    pictures = _Pictures(options, request)
    modules = [pictures.renderer.transformer]
    has_backward = request.trains or request.passes_gradient or request.num_rows > 0
    prediction = measured_call(pictures.predict, with_backward=False)
    decoding = measured_call(pictures.decode, with_backward=False)
    # the first steps have no gradient and are all alike, so only the last of them runs here
    step = measured_call(pictures.step, modules=modules, with_backward=has_backward)
    skipped = prediction.repeated(pictures.num_steps - pictures.num_measured_steps)
    step = step.model_copy(update={"forward": step.forward + skipped.forward * request.batch_size})
    sample = in_sequence(prediction.repeated(pictures.num_steps), decoding, *pictures.encoding())
    return with_trained_counts(AgentCost(step=step, sample=sample), pictures.renderer.transformer)


class _Pictures:
    """The calls of the agents, with models and inputs that have shapes but no values."""

    def __init__(self, options: Sd3Options, request: CostRequest) -> None:
        self._options = options
        self._request = request
        self._dtype = DTYPES[options.dtype]
        self.renderer = sized_renderer(options, _META)
        with _META:  # where adapters are made
            select_trainable(self.renderer.transformer, request.trainable)
        self.num_steps, _ = options.steps_that_run()
        num_gradient_steps = self.num_steps if options.gradient_steps == "all" else options.gradient_steps
        self.num_measured_steps = min(num_gradient_steps + 1, self.num_steps)
        self._settings = RenderSettings(
            height=options.height,
            width=options.width,
            num_inference_steps=self.num_measured_steps,
            guidance_scale=options.guidance_scale,
            gradient_steps=num_gradient_steps,
            position=options.position,
        )

    def step(self) -> torch.Tensor:
        """`forward`, with the agent's own loss if it adds one."""
        size = self._request.batch_size
        prompts, seeds, z = [self._text() for _ in range(size)], list(range(size)), self._z()
        images = self._render(z, prompts, seeds)
        if not self._request.adds_loss:
            return images
        frames = torch.empty(size, 3, self._options.height, self._options.width, device=_META)
        return images.mean() + self.renderer.own_loss(z, prompts, frames, seeds, self._settings)

    def _render(self, z: torch.Tensor | None, prompts: list[TextEmbedding], seeds: list[int]) -> torch.Tensor:
        if not isinstance(self._options, Sd3ImageToImageOptions):
            return self.renderer.render(z, prompts, self._text(), seeds, self._settings)
        images = torch.empty(len(seeds), 3, self._options.height, self._options.width, device=_META)
        images.requires_grad_(self._request.passes_gradient)
        renderer = ImageToImageRenderer(self.renderer)
        # the steps that are measured are those that run, so none is skipped
        return renderer.render(z, prompts, self._text(), seeds, images, 1.0, self._settings)

    def predict(self) -> torch.Tensor:
        """One denoising step of one picture."""
        joint, pooled = self.renderer.condition(self._z(), [self._text()], self._text(), self._settings)
        timestep = torch.empty((), device=_META)
        return self.renderer.velocity(self._latents(), timestep, joint, pooled, self._settings.guidance_scale)

    def decode(self) -> torch.Tensor:
        return self.renderer.decode(self._latents())

    def encoding(self) -> list[CallCost]:
        """The cost of encoding a given picture; none if the agent takes none."""
        if not isinstance(self._options, Sd3ImageToImageOptions):
            return []
        picture = torch.empty(1, 3, self._options.height, self._options.width, device=_META)
        return [measured_call(lambda: self.renderer.encode(picture, [0]), with_backward=False)]

    def _latents(self) -> torch.Tensor:
        return self.renderer.initial_latents([0], replace(self._settings, num_inference_steps=1))

    def _text(self) -> TextEmbedding:
        config = self.renderer.transformer.config
        num_tokens = published.NUM_CLIP_TOKENS + self._options.max_sequence_length
        joint = torch.empty(num_tokens, config.joint_attention_dim, device=_META, dtype=self._dtype)
        return TextEmbedding(joint, torch.empty(config.pooled_projection_dim, device=_META, dtype=self._dtype))

    def _z(self) -> torch.Tensor | None:
        rows, width = self._request.num_rows, self.renderer.transformer.config.joint_attention_dim
        return torch.empty(rows, width, device=_META, requires_grad=self._request.trains) if rows else None
