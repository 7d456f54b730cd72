"""Memory and operations of Stable Video Diffusion's agent, counted on the meta device."""

from __future__ import annotations

from pathlib import Path

import torch
from mora_environment.cost import AgentCost, CostRequest
from mora_environment.model_folder import config_in
from torch import Tensor

from mora_env_svd.clip_cost import META, ClipCost, sized
from mora_env_svd.clip_size import ClipSize
from mora_env_svd.frame_coder import Posterior
from mora_env_svd.svd import published
from mora_env_svd.svd.agent import clip_numbers, sampling_settings
from mora_env_svd.svd.conditioning import with_rows
from mora_env_svd.svd.models import DTYPES, SvdModels
from mora_env_svd.svd.objective import ClipObjective, NoiseDraw
from mora_env_svd.svd.options import SvdOptions
from mora_env_svd.svd.pipeline import ClipPlan, ImageToVideoPipeline

_GREY = (0.5, 0.5, 0.5)  # values have no effect on cost


def svd_cost(options: SvdOptions, request: CostRequest) -> AgentCost:
    """Return what the agent costs with these options."""
    return _SvdCost(options, request).cost()


class _SvdCost(ClipCost):
    def __init__(self, options: SvdOptions, request: CostRequest) -> None:
        self._size = ClipSize(options.num_frames, options.height, options.width)
        self._numbers = clip_numbers(options)
        self._models = models = _sized_models(options)
        super().__init__(
            request,
            models.unet,
            width=models.unet.config.cross_attention_dim,
            picture=(options.height, options.width),
            gradient_steps=options.gradient_steps,
            num_inference_steps=options.num_inference_steps,
        )
        self._objective = ClipObjective(models.unet, models.coder, models.encoder, self._size, self._numbers)
        settings = sampling_settings(options.model_copy(update={"num_inference_steps": self.num_measured_steps}))
        self._is_guided = settings.is_guided
        self._pipeline = ImageToVideoPipeline(
            models.unet, models.coder, models.encoder, models.scheduler, self._size, self._numbers, settings
        )

    def encode_target(self) -> Tensor:
        return self._models.coder.posterior(self.pictures(self._size.frames)).mean

    def encode_given(self) -> Tensor:
        """A picture's latents and embedding."""
        picture = self.pictures(1)
        return self._models.coder.modes(picture).sum() + self._models.encoder.embeddings(picture).sum()

    def sampling_step(self) -> Tensor:
        """One model call: guidance makes it a batch of two."""
        unet, number = self._models.unet, 2 if self._is_guided else 1
        rows = with_rows(sized(number, 1, unet.config.cross_attention_dim).to(unet.dtype), self.z())
        frames, channels, h, w = self._size.frame_latents_shape
        inputs = sized(number, frames, 2 * channels, h, w).to(unet.dtype)
        time_ids = self._numbers.time_ids(number, rows)
        found: Tensor = unet(inputs, sized(), rows, added_time_ids=time_ids, return_dict=False)[0]
        return found

    def decode(self) -> Tensor:
        coder = self._models.coder
        return torch.cat([coder.decoded(piece) for piece in coder.pieces(sized(*self._size.frame_latents_shape))])

    def loss(self, images: Tensor) -> Tensor:
        number, shape = len(images), self._size.frame_latents_shape
        target = Posterior(sized(*shape), sized(*shape))
        draws = [NoiseDraw.of(seed, self._size) for seed in range(number)]
        return self._objective.loss(self.z(), images, [target] * number, draws)

    def frames(self, image: Tensor) -> Tensor:
        return self._pipeline.pixels(ClipPlan(image, image, 0, self.z()), self.num_gradient_steps)


def _sized_models(options: SvdOptions) -> SvdModels:
    """The models on the meta device, set as the agent sets them."""
    from diffusers import AutoencoderKLTemporalDecoder, EulerDiscreteScheduler, UNetSpatioTemporalConditionModel
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    folder = Path(options.model)
    with META:
        unet = UNetSpatioTemporalConditionModel.from_config(config_in(Path(options.weights_folder()), published.UNET))
        vae = AutoencoderKLTemporalDecoder.from_config(config_in(folder / "vae", published.VAE))
        vision = CLIPVisionModelWithProjection(
            CLIPVisionConfig(**config_in(folder / "image_encoder", published.IMAGE_ENCODER))
        )
    scheduler = EulerDiscreteScheduler(**published.SCHEDULER)
    unet, vae, vision = (
        # by torch's own method, because diffusers warns about every cast; some of its parameters are on the CPU yet
        torch.nn.Module.to(model, device=META, dtype=dtype).eval()
        for model, dtype in (
            (unet, DTYPES[options.dtype]),
            (vae, DTYPES[options.vae_dtype]),
            (vision, DTYPES[options.dtype]),
        )
    )
    return SvdModels.of(options, unet, vae, vision, scheduler, _GREY, _GREY)
