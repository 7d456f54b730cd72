"""Memory and operations of Wan's agent, counted on the meta device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from mora_environment.cost import AgentCost, CostRequest, in_sequence
from mora_environment.cost_meter import measured_call, with_trained_counts
from mora_runtime.errors import SettingsError
from mora_training.trainable import select_trainable
from torch import Tensor

from mora_env_svd.wan.conditioning import Condition, GivenPictures
from mora_env_svd.wan.image_encoder import ImageEncoder
from mora_env_svd.wan.layout import Configs, layout_of, model_configs
from mora_env_svd.wan.models import DTYPES, WanModels, assembled, scheduler_of
from mora_env_svd.wan.objective import FlowObjective
from mora_env_svd.wan.options import WanOptions
from mora_env_svd.wan.pipeline import ClipPlan, SamplingSettings

_META = torch.device("meta")


def wan_cost(options: WanOptions, request: CostRequest) -> AgentCost:
    """Return what the agent costs with these options."""
    clip = _Clip(options, request)
    has_backward = request.trains or request.passes_gradient
    target, condition, prediction, decoding = (
        measured_call(part, with_backward=False)
        for part in (clip.encode_target, clip.encode_condition, clip.predict, clip.decode)
    )
    step = measured_call(clip.step, modules=[clip.model], with_backward=has_backward)
    # the first steps of `forward` have no gradient and are all alike, so only the last of them runs here
    num_skipped = 0 if request.has_loss else options.num_inference_steps - clip.num_measured_steps
    skipped = prediction.repeated(num_skipped).forward * request.batch_size
    step = step.model_copy(update={"forward": step.forward + skipped})
    sample = in_sequence(condition, prediction.repeated(options.num_inference_steps), decoding)
    return with_trained_counts(AgentCost(prepare=target, step=step, sample=sample), clip.model)


class _Clip:
    """The calls of the agent, with models and inputs that have shapes but no values."""

    def __init__(self, options: WanOptions, request: CostRequest) -> None:
        self._options = options
        self._request = request
        self._models = sized_models(options)
        self._size = self._models.conditioner.size
        self.model = self._models.denoiser.model
        with _META:  # where adapters are made
            select_trainable(self.model, request.trainable)
        self._objective = FlowObjective(self._models.denoiser, self._models.conditioner)
        steps = options.gradient_steps
        self._num_gradient_steps = options.num_inference_steps if steps == "all" else steps or 0
        self.num_measured_steps = min(max(self._num_gradient_steps + 1, 2), options.num_inference_steps)
        self._pipeline = self._models.pipeline(SamplingSettings(self.num_measured_steps, options.guidance_scale))

    def encode_target(self) -> Tensor:
        size = self._size
        return self._models.coder.encoded(_made(1, 3, size.num_frames, size.height, size.width))

    def encode_condition(self) -> Tensor:
        return self._condition().latents

    def step(self) -> Tensor:
        """`loss`, or `forward` where the agent is inside the chain."""
        images = self._pictures(self._request.batch_size).requires_grad_(self._request.passes_gradient)
        outputs = []
        if self._request.has_loss or self._request.adds_loss:
            outputs.append(self._loss(images))
        if not self._request.has_loss:
            outputs += [self._frames(given).sum() for given in self._models.conditioner.of_images(images)]
        return torch.stack(outputs).sum()

    def _loss(self, images: Tensor) -> Tensor:
        number = len(images)
        targets = [_made(*self._size.latent_shape)] * number
        return self._objective.loss(self._z(), [self._text()] * number, images, targets, list(range(number)))

    def _frames(self, given: GivenPictures) -> Tensor:
        plan = ClipPlan(self._text(), self._text(), given, 0, self._z())
        return self._pipeline.pixels(plan, self._num_gradient_steps)

    def predict(self) -> Tensor:
        """One step of a sample; guidance makes it two model calls."""
        denoiser, latents = self._models.denoiser, _made(1, *self._size.latent_shape)
        channels = self.model.config.in_channels - (0 if denoiser.layout.replaces_first else latents.shape[1])
        _, num_latent_frames, h, w = self._size.latent_shape
        num_given = 1 if denoiser.layout.replaces_first else num_latent_frames
        condition = Condition(_made(1, channels, num_given, h, w), self._picture_rows())
        text = denoiser.text([self._text()], self._z())
        halves = 2 if self._options.guidance_scale > 1.0 else 1
        return torch.stack([denoiser.velocity(latents, _made(1), text, condition) for _ in range(halves)]).sum()

    def decode(self) -> Tensor:
        return torch.cat(list(self._models.coder.decoded(_made(1, *self._size.latent_shape))))

    def _condition(self) -> Condition:
        images = self._pictures(self._models.layout.least_given)
        given = self._models.conditioner.of_images(images)
        prepared = [each.prepared for each in given if each.prepared is not None]
        return self._models.conditioner.condition(GivenPictures(images, torch.cat(prepared) if prepared else None))

    def _picture_rows(self) -> Tensor | None:
        encoder, width = self._models.conditioner.image_encoder, self.model.config.image_dim
        return None if encoder is None else _made(self._models.layout.least_given, encoder.num_rows, width)

    def _pictures(self, number: int) -> Tensor:
        return _made(number, 3, self._size.height, self._size.width)

    def _text(self) -> Tensor:
        return _made(self._options.max_sequence_length, self.model.config.text_dim)

    def _z(self) -> Tensor | None:
        rows = self._request.num_rows
        if not rows:
            return None
        return _made(rows, self.model.config.text_dim).requires_grad_(self._request.trains)


def _made(*shape: int) -> Tensor:
    return torch.empty(shape, device=_META)


def sized_models(options: WanOptions) -> WanModels:
    """The models on the meta device, set as the agent sets them. Of two transformers, which cost the same, it has one.

    Raises:
        SettingsError: the model is neither a folder nor a known Hub id.
    """
    configs = model_configs(options.model)
    if configs is None:
        raise SettingsError(f"`{options.model}`: no such folder or known Hub id; expected a Wan model")
    layout = layout_of(configs, options.model)
    with _META:
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
    with _META:
        model: Any = CLIPVisionModel(config).to(DTYPES[options.vae_dtype]).eval().requires_grad_(False)
    crop = {"height": config.image_size, "width": config.image_size}
    return ImageEncoder(model, CLIPImageProcessorPil(size={"shortest_edge": config.image_size}, crop_size=crop))
