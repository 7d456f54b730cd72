"""Memory and operations of Wan's agent, counted on the meta device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from mora_environment.cost import AgentCost, CostRequest
from mora_runtime.errors import SettingsError
from torch import Tensor

from mora_env_svd.clip_cost import META, ClipCost, sized
from mora_env_svd.wan.conditioning import Condition, GivenPictures
from mora_env_svd.wan.image_encoder import ImageEncoder
from mora_env_svd.wan.layout import Configs, layout_of, model_configs
from mora_env_svd.wan.models import DTYPES, WanModels, assembled, scheduler_of
from mora_env_svd.wan.objective import FlowObjective
from mora_env_svd.wan.options import WanOptions
from mora_env_svd.wan.pipeline import ClipPlan, SamplingSettings


def wan_cost(options: WanOptions, request: CostRequest) -> AgentCost:
    """Return what the agent costs with these options."""
    return _WanCost(options, request).cost()


class _WanCost(ClipCost):
    def __init__(self, options: WanOptions, request: CostRequest) -> None:
        self._options = options
        self._models = models = sized_models(options)
        self._size = models.conditioner.size
        model = models.denoiser.model
        super().__init__(
            request,
            model,
            width=model.config.text_dim,
            picture=(options.height, options.width),
            gradient_steps=options.gradient_steps,
            num_inference_steps=options.num_inference_steps,
        )
        self._objective = FlowObjective(models.denoiser, models.conditioner)
        self._pipeline = models.pipeline(SamplingSettings(self.num_measured_steps, options.guidance_scale))

    def encode_target(self) -> Tensor:
        size = self._size
        return self._models.coder.encoded(sized(1, 3, size.num_frames, size.height, size.width))

    def encode_given(self) -> Tensor:
        conditioner, images = self._models.conditioner, self.pictures(self._models.layout.least_given)
        prepared = [each.prepared for each in conditioner.of_images(images) if each.prepared is not None]
        return conditioner.condition(GivenPictures(images, torch.cat(prepared) if prepared else None)).latents

    def sampling_step(self) -> Tensor:
        denoiser, latents = self._models.denoiser, sized(1, *self._size.latent_shape)
        channels = self.model.config.in_channels - (0 if denoiser.layout.replaces_first else latents.shape[1])
        _, num_latent_frames, h, w = self._size.latent_shape
        num_given = 1 if denoiser.layout.replaces_first else num_latent_frames
        condition = Condition(sized(1, channels, num_given, h, w), self._picture_rows())
        text = denoiser.text([self._text()], self.z())
        halves = 2 if self._options.guidance_scale > 1.0 else 1
        return torch.stack([denoiser.velocity(latents, sized(1), text, condition) for _ in range(halves)]).sum()

    def decode(self) -> Tensor:
        return torch.cat(list(self._models.coder.decoded(sized(1, *self._size.latent_shape))))

    def loss(self, images: Tensor) -> Tensor:
        number = len(images)
        targets = [sized(*self._size.latent_shape)] * number
        return self._objective.loss(self.z(), [self._text()] * number, images, targets, list(range(number)))

    def frames(self, image: Tensor) -> Tensor:
        (given,) = self._models.conditioner.of_images(image)
        plan = ClipPlan(self._text(), self._text(), given, 0, self.z())
        return self._pipeline.pixels(plan, self.num_gradient_steps)

    def _picture_rows(self) -> Tensor | None:
        encoder, width = self._models.conditioner.image_encoder, self.model.config.image_dim
        return None if encoder is None else sized(self._models.layout.least_given, encoder.num_rows, width)

    def _text(self) -> Tensor:
        return sized(self._options.max_sequence_length, self.model.config.text_dim)


def sized_models(options: WanOptions) -> WanModels:
    """The models on the meta device, set as the agent sets them. Of two transformers, which cost the same, it has one.

    Raises:
        SettingsError: the model is neither a folder nor a known Hub id.
    """
    configs = model_configs(options.model)
    if configs is None:
        raise SettingsError(f"`{options.model}`: no such folder or known Hub id; expected a Wan model")
    layout = layout_of(configs, options.model)
    with META:
        transformer = WanTransformer3DModel.from_config(dict(configs["transformer"]))
        vae = AutoencoderKLWan.from_config(dict(configs["vae"]))
    _cast(transformer, DTYPES[options.dtype], transformer._keep_in_fp32_modules)
    _cast(vae, DTYPES[options.vae_dtype])
    encoder = _sized_encoder(configs, options) if layout.has_image_encoder else None
    return assembled(options, layout, [transformer], vae, encoder, scheduler_of(configs, options))


def _cast(model: torch.nn.Module, dtype: torch.dtype, kept: Sequence[str] = ()) -> None:
    """Cast parameters as loading does: those of the `kept` modules stay float32."""
    for name, parameter in model.named_parameters():
        if not set(kept) & set(name.split(".")):
            parameter.data = parameter.data.to(dtype)


def _sized_encoder(configs: Configs, options: WanOptions) -> ImageEncoder:
    from transformers import CLIPImageProcessorPil, CLIPVisionConfig, CLIPVisionModel

    config = CLIPVisionConfig(**configs["image_encoder"])
    with META:
        model: Any = CLIPVisionModel(config).to(DTYPES[options.vae_dtype]).eval().requires_grad_(False)
    crop = {"height": config.image_size, "width": config.image_size}
    return ImageEncoder(model, CLIPImageProcessorPil(size={"shortest_edge": config.image_size}, crop_size=crop))
