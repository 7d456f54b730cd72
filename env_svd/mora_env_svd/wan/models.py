"""The models of an agent, loaded from the folders that its options name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import (
    AutoencoderKLWan,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
    WanTransformer3DModel,
)

from mora_env_svd.errors import ConfigError
from mora_env_svd.wan.attention import attend_to_picture_and_text
from mora_env_svd.wan.autoencoder import LatentCoder
from mora_env_svd.wan.conditioning import Conditioner
from mora_env_svd.wan.denoiser import Denoiser
from mora_env_svd.wan.image_encoder import ImageEncoder
from mora_env_svd.wan.layout import Configs, WanLayout, WanSize, layout_of, model_configs
from mora_env_svd.wan.options import WanOptions
from mora_env_svd.wan.pipeline import SamplingSettings, WanPipeline

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class WanModels:
    """What makes clips of one size.

    Args:
        scheduler: of diffusers, by the model's scheduler_config.json.
    """

    layout: WanLayout
    denoiser: Denoiser
    coder: LatentCoder
    conditioner: Conditioner
    scheduler: Any

    def pipeline(self, settings: SamplingSettings) -> WanPipeline:
        return WanPipeline(self.denoiser, self.conditioner, self.coder, self.scheduler, settings)


def load_models(options: WanOptions, device: torch.device) -> WanModels:
    """Load transformer, autoencoder, image encoder and scheduler.

    Raises:
        ConfigError: the model is missing or has a layout that this kind does not have.
    """
    configs = _configs(options.model)
    layout = layout_of(configs, options.model)
    dtype = DTYPES[options.dtype]
    folders = [(options.transformer, None) if options.transformer else (options.model, "transformer")]
    if layout.boundary_ratio is not None:
        folders.append((options.model, "transformer_2"))
    # only safetensors, because other formats can contain a program
    transformers = [
        WanTransformer3DModel.from_pretrained(source, subfolder=subfolder, dtype=dtype, use_safetensors=True)
        for source, subfolder in folders
    ]
    vae = AutoencoderKLWan.from_pretrained(
        options.model, subfolder="vae", dtype=DTYPES[options.vae_dtype], use_safetensors=True
    )
    image_encoder = _image_encoder(options, device) if layout.has_image_encoder else None
    transformers = [transformer.to(device).eval() for transformer in transformers]
    return assembled(options, layout, transformers, vae.to(device), image_encoder, scheduler_of(configs, options))


def assembled(
    options: WanOptions,
    layout: WanLayout,
    transformers: Sequence[Any],
    vae: Any,
    image_encoder: ImageEncoder | None,
    scheduler: Any,
) -> WanModels:
    """Put models together, set as the options say.

    Args:
        transformers: the one that trains, or the one for high noise levels and the one for low noise levels.
    """
    transformer = transformers[0]
    if options.gradient_checkpointing:
        transformer.enable_gradient_checkpointing()
    if image_encoder is not None:
        attend_to_picture_and_text(transformer, layout.least_given * image_encoder.num_rows)
    coder = LatentCoder(vae.eval().requires_grad_(False), recomputes=options.gradient_checkpointing)
    size = WanSize(layout, options.num_frames, options.height, options.width)
    return WanModels(
        layout=layout,
        denoiser=Denoiser(transformer, layout, options.max_sequence_length, *transformers[1:]),
        coder=coder,
        conditioner=Conditioner(size, coder, image_encoder),
        scheduler=scheduler,
    )


def scheduler_of(configs: Configs, options: WanOptions) -> Any:
    """The sampler that the model's configs name, with the noise levels that the options name.

    Raises:
        ConfigError: it is no sampler of flow matching that this kind has.
    """
    config = dict(configs.get("scheduler", {}))
    name, shift = config.get("_class_name"), options.flow_shift
    if name == "FlowMatchEulerDiscreteScheduler":
        return FlowMatchEulerDiscreteScheduler.from_config(config, **({} if shift is None else {"shift": shift}))
    predicts_flow = config.get("prediction_type") == "flow_prediction" and config.get("use_flow_sigmas")
    if name == "UniPCMultistepScheduler" and predicts_flow:
        return UniPCMultistepScheduler.from_config(config, **({} if shift is None else {"flow_shift": shift}))
    raise ConfigError(
        f"`{options.model}`: its scheduler is {name}; expected FlowMatchEulerDiscreteScheduler, or "
        "UniPCMultistepScheduler with flow_prediction and use_flow_sigmas"
    )


def _configs(model: str) -> Configs:
    found = model_configs(model)
    if found is None:
        raise ConfigError(f"`{model}`: no such folder; expected a model in diffusers' layout, or a downloaded Hub id")
    return found


def _image_encoder(options: WanOptions, device: torch.device) -> ImageEncoder:
    from transformers import CLIPImageProcessorPil, CLIPVisionModel

    with torch.random.fork_rng(devices=[]):  # transformers draws initial weights before it reads the stored ones
        model = CLIPVisionModel.from_pretrained(
            options.model, subfolder="image_encoder", dtype=DTYPES[options.vae_dtype], use_safetensors=True
        )
    processor = CLIPImageProcessorPil.from_pretrained(options.model, subfolder="image_processor")
    return ImageEncoder(model.to(device).eval().requires_grad_(False), processor)
