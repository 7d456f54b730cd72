"""Memory and operations of Stable Video Diffusion's agent, counted on the meta device."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from mora_environment.cost import AgentCost, CostRequest, in_sequence
from mora_environment.cost_meter import measured_call, with_trained_counts
from mora_training.trainable import select_trainable
from torch import Tensor

from mora_env_svd.clip_size import ClipSize
from mora_env_svd.frame_coder import Posterior
from mora_env_svd.svd import published
from mora_env_svd.svd.agent import clip_numbers, sampling_settings
from mora_env_svd.svd.conditioning import with_rows
from mora_env_svd.svd.models import DTYPES, SvdModels
from mora_env_svd.svd.objective import ClipObjective, NoiseDraw
from mora_env_svd.svd.options import SvdOptions
from mora_env_svd.svd.pipeline import ClipPlan, ImageToVideoPipeline

_META = torch.device("meta")
_GREY = (0.5, 0.5, 0.5)  # values have no effect on cost


def svd_cost(options: SvdOptions, request: CostRequest) -> AgentCost:
    """Return what the agent costs with these options."""
    clip = _Clip(options, request)
    has_backward = request.trains or request.passes_gradient
    target, picture, prediction, decoding = (
        measured_call(part, with_backward=False)
        for part in (clip.encode_target, clip.encode_picture, clip.predict, clip.decode)
    )
    step = measured_call(clip.step, modules=[clip.models.unet], with_backward=has_backward)
    # the first steps of `forward` have no gradient and are all alike, so only the last of them runs here
    num_skipped = 0 if request.has_loss else options.num_inference_steps - clip.num_measured_steps
    skipped = prediction.repeated(num_skipped).forward * request.batch_size
    step = step.model_copy(update={"forward": step.forward + skipped})
    sample = in_sequence(picture, prediction.repeated(options.num_inference_steps), decoding)
    return with_trained_counts(AgentCost(prepare=target, step=step, sample=sample), clip.models.unet)


class _Clip:
    """The calls of the agent, with models and inputs that have shapes but no values."""

    def __init__(self, options: SvdOptions, request: CostRequest) -> None:
        self._request = request
        self._size = ClipSize(options.num_frames, options.height, options.width)
        self._numbers = clip_numbers(options)
        self.models = models = _sized_models(options)
        with _META:  # where adapters are made
            select_trainable(models.unet, request.trainable)
        self._objective = ClipObjective(models.unet, models.coder, models.encoder, self._size, self._numbers)
        steps = options.gradient_steps
        self._num_gradient_steps = options.num_inference_steps if isinstance(steps, str) else steps or 0
        self.num_measured_steps = min(self._num_gradient_steps + 1, options.num_inference_steps)
        settings = sampling_settings(options.model_copy(update={"num_inference_steps": self.num_measured_steps}))
        self._is_guided = settings.is_guided
        self._pipeline = ImageToVideoPipeline(
            models.unet, models.coder, models.encoder, models.scheduler, self._size, self._numbers, settings
        )

    def encode_target(self) -> Tensor:
        """The posterior of a target clip."""
        return self.models.coder.posterior(self._pictures(self._size.frames)).mean

    def encode_picture(self) -> Tensor:
        """A picture's latents and embedding."""
        picture = self._pictures(1)
        return self.models.coder.modes(picture).sum() + self.models.encoder.embeddings(picture).sum()

    def step(self) -> Tensor:
        """`loss`, or `forward` where the agent is inside the chain."""
        images = self._pictures(self._request.batch_size).requires_grad_(self._request.passes_gradient)
        outputs = []
        if self._request.has_loss or self._request.adds_loss:
            outputs.append(self._loss(images))
        if not self._request.has_loss:
            outputs += [self._frames(image).sum() for image in images.split(1)]
        return torch.stack(outputs).sum()

    def _loss(self, images: Tensor) -> Tensor:
        size = len(images)
        shape = self._size.frame_latents_shape
        target = Posterior(self._made(*shape), self._made(*shape))
        draws = [NoiseDraw.of(seed, self._size) for seed in range(size)]
        return self._objective.loss(self._z(), images, [target] * size, draws)

    def _frames(self, image: Tensor) -> Tensor:
        return self._pipeline.pixels(ClipPlan(image, image, 0, self._z()), self._num_gradient_steps)

    def predict(self) -> Tensor:
        """One step of a sample: guidance makes it a batch of two."""
        unet, number = self.models.unet, 2 if self._is_guided else 1
        rows = with_rows(self._made(number, 1, unet.config.cross_attention_dim).to(unet.dtype), self._z())
        frames, channels, h, w = self._size.frame_latents_shape
        inputs = self._made(number, frames, 2 * channels, h, w).to(unet.dtype)
        time_ids = self._numbers.time_ids(number, rows)
        found: Tensor = unet(inputs, self._made(), rows, added_time_ids=time_ids, return_dict=False)[0]
        return found

    def decode(self) -> Tensor:
        coder = self.models.coder
        return torch.cat([coder.decoded(piece) for piece in coder.pieces(self._made(*self._size.frame_latents_shape))])

    def _pictures(self, number: int) -> Tensor:
        return self._made(number, 3, self._size.height, self._size.width)

    def _z(self) -> Tensor | None:
        rows = self._request.num_rows
        if not rows:
            return None
        return self._made(rows, self.models.unet.config.cross_attention_dim).requires_grad_(self._request.trains)

    @staticmethod
    def _made(*shape: int) -> Tensor:
        return torch.empty(shape, device=_META)


def _sized_models(options: SvdOptions) -> SvdModels:
    """The models on the meta device, set as the agent sets them."""
    from diffusers import AutoencoderKLTemporalDecoder, EulerDiscreteScheduler, UNetSpatioTemporalConditionModel
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    folder = Path(options.model)
    with _META:
        unet = UNetSpatioTemporalConditionModel.from_config(_config(Path(options.weights_folder()), published.UNET))
        vae = AutoencoderKLTemporalDecoder.from_config(_config(folder / "vae", published.VAE))
        vision = CLIPVisionModelWithProjection(
            CLIPVisionConfig(**_config(folder / "image_encoder", published.IMAGE_ENCODER))
        )
    scheduler = EulerDiscreteScheduler(**published.SCHEDULER)
    unet, vae, vision = (
        # by torch's own method, because diffusers warns about every cast; some of its parameters are on the CPU yet
        torch.nn.Module.to(model, device=_META, dtype=dtype).eval()
        for model, dtype in (
            (unet, DTYPES[options.dtype]),
            (vae, DTYPES[options.vae_dtype]),
            (vision, DTYPES[options.dtype]),
        )
    )
    return SvdModels.of(options, unet, vae, vision, scheduler, _GREY, _GREY)


def _config(folder: Path, otherwise: dict[str, Any]) -> dict[str, Any]:
    """The config.json of a folder, or the published one where the folder is a name on the Hub."""
    path = folder / "config.json"
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else otherwise
