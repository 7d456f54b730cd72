"""Memory and operations of SEINE's agent, counted on the meta device."""

from __future__ import annotations

from pathlib import Path

import torch
from mora_environment.cost import AgentCost, CostRequest
from mora_environment.model_folder import config_in
from torch import Tensor

from mora_env_svd.clip_cost import META, ClipCost, sized
from mora_env_svd.clip_size import ClipSize
from mora_env_svd.frame_coder import Posterior
from mora_env_svd.seine import published
from mora_env_svd.seine.conditioning import MaskedFrameCoder, frames_of
from mora_env_svd.seine.models import SeineUNet
from mora_env_svd.seine.objective import TransitionObjective, stack_texts
from mora_env_svd.seine.options import SeineOptions
from mora_env_svd.seine.pipeline import ClipPlan, GivenFramesPipeline, SamplingSettings

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def seine_cost(options: SeineOptions, request: CostRequest) -> AgentCost:
    """Return what the agent costs with these options; every prompt has the same length."""
    return _SeineCost(options, request).cost()


class _SeineCost(ClipCost):
    def __init__(self, options: SeineOptions, request: CostRequest) -> None:
        self._size = ClipSize(options.num_frames, options.height, options.width)
        model, self._coder = _sized_models(options)
        super().__init__(
            request,
            model,
            width=model.config.cross_attention_dim,
            picture=(options.height, options.width),
            gradient_steps=options.gradient_steps,
            num_inference_steps=options.num_inference_steps,
            least_steps=2,
        )
        self._coder.grey(self._size)  # computed once, so it is no part of a call
        self._objective = TransitionObjective(model, self._coder, self._size, options.training_masks)
        sampling = SamplingSettings(options.sample_method, self.num_measured_steps, options.guidance_scale)
        self._pipeline = GivenFramesPipeline(model, self._coder, self._size, sampling)

    def encode_target(self) -> Tensor:
        return self._coder.posterior(self.pictures(self._size.frames)).mean

    def encode_given(self) -> Tensor:
        return self._coder.posterior(self.pictures(1)).mean

    def sampling_step(self) -> Tensor:
        """One model call: guidance makes it a batch of two."""
        text = stack_texts([self._text()] * 2, self.z(), self.model)
        sample = sized(2, self.model.config.in_channels, *self._size.latent_shape[1:]).to(self.model.dtype)
        found: Tensor = self.model(sample, sized(2), text)
        return found

    def decode(self) -> Tensor:
        latents = frames_of(sized(1, *self._size.latent_shape))
        return torch.cat([self._coder.decoded(piece) for piece in self._coder.pieces(latents)])

    def loss(self, images: Tensor) -> Tensor:
        number, shape = len(images), self._size.frame_latents_shape
        target = Posterior(sized(*shape), sized(*shape))
        return self._objective.loss(self.z(), [self._text()] * number, images, [target] * number, list(range(number)))

    def frames(self, image: Tensor) -> Tensor:
        plan = ClipPlan(self._text(), self._text(), image, (0,), 0, self.z())
        return self._pipeline.pixels(plan, self.num_gradient_steps)

    def _text(self) -> Tensor:
        return sized(published.TEXT_LENGTH, self.model.config.cross_attention_dim)


def _sized_models(options: SeineOptions) -> tuple[SeineUNet, MaskedFrameCoder]:
    """The models on the meta device, set as the agent sets them."""
    from diffusers import AutoencoderKL

    with META:
        model = SeineUNet.from_config(config_in(Path(options.model), {})).to(_DTYPES[options.dtype])
        vae = AutoencoderKL.from_config(config_in(Path(options.base) / "vae", published.VAE))
    model.gradient_checkpointing = options.gradient_checkpointing
    if options.vae_dtype != "float32":  # diffusers warns about every cast
        vae = vae.to(_DTYPES[options.vae_dtype])
    vae = vae.eval().requires_grad_(False)
    return model, MaskedFrameCoder(vae, options.decoded_at_once, recomputes=options.gradient_checkpointing)
