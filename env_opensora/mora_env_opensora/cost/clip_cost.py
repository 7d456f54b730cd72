"""Memory and operations of the Open-Sora-Plan agent, counted on the meta device."""

from __future__ import annotations

import torch
from mora_environment.cost import AgentCost, CostRequest, in_sequence
from mora_environment.cost_meter import measured_call, with_trained_counts
from mora_training.trainable import select_trainable
from torch import Tensor

from mora_env_opensora.conditioning import ClipSize
from mora_env_opensora.objective import LossSettings, Target, VideoObjective, stack_texts
from mora_env_opensora.options import OpenSoraOptions
from mora_env_opensora.pipelines import GivenFramesPipeline, SamplingSettings
from mora_env_opensora.pipelines.pixels import decode_pixels
from mora_env_opensora.sized_models import DTYPES, sized_models

_META = torch.device("meta")


def clip_cost(options: OpenSoraOptions, request: CostRequest) -> AgentCost:
    """Return what the agent costs with these options, with the longest prompts that they allow."""
    clip = _Clip(options, request)
    has_backward = request.trains or request.passes_gradient
    # it fills the cache of grey chunks, which a step finds; a target or a sample's first frame costs the same
    encoding = measured_call(clip.encode, with_backward=False)
    step = measured_call(clip.step, modules=[clip.model], with_backward=has_backward)
    prediction, decoding = (measured_call(part, with_backward=False) for part in (clip.predict, clip.decode))
    sampling = prediction.repeated(clip.pipeline.sampler.num_model_calls())
    cost = AgentCost(prepare=encoding, step=step, sample=in_sequence(encoding, sampling, decoding))
    return with_trained_counts(cost, clip.model)


class _Clip:
    """The calls of the agent, with models and inputs that have shapes but no values."""

    def __init__(self, options: OpenSoraOptions, request: CostRequest) -> None:
        self._options = options
        self._request = request
        self._dtype = DTYPES[options.dtype]
        self._size = ClipSize(options.num_frames, options.height, options.width)
        self.model, self._vae = sized_models(options, _META)
        with _META:
            select_trainable(self.model, request.trainable)
        settings = LossSettings(options.prediction_type, options.snr_gamma, options.noise_offset)
        sampling = SamplingSettings(
            options.scheduler, options.num_inference_steps, options.guidance_scale, options.prediction_type
        )
        self._objective = VideoObjective(self.model, self._vae, self._size, settings)
        self.pipeline = GivenFramesPipeline(self.model, self._vae, self._size, sampling)

    @torch.enable_grad()
    def encode(self) -> Tensor:
        """Encode a masked clip in the mode of a step, but without a graph."""
        image = self._made(1, 3, self._size.height, self._size.width)
        return self.pipeline.condition([image], [0], self._made(1, *self._size.latent_shape))

    def step(self) -> Tensor:
        """`loss`, or `forward` where the agent is inside the chain."""
        images = self._made(self._request.batch_size, 3, self._size.height, self._size.width)
        images.requires_grad_(self._request.passes_gradient)
        outputs = []
        if self._request.has_loss or self._request.adds_loss:
            outputs.append(self._loss(images))
        if not self._request.has_loss:
            outputs += [self._frames(images[index : index + 1]).float().sum() for index in range(len(images))]
        return torch.stack(outputs).sum()

    def _loss(self, images: Tensor) -> Tensor:
        size = len(images)
        shape = self._size.latent_shape
        targets = [Target(torch.empty(shape), torch.empty(shape)) for _ in range(size)]
        return self._objective.loss(self._z(), [self._text()] * size, images, targets, list(range(size)))

    def _frames(self, image: Tensor) -> Tensor:
        steps = self._options.gradient_steps
        num_steps = self.pipeline.sampler.num_model_calls() if steps == "all" else steps or 0
        return self.pipeline.pixels(self._text(), self._text(), [image], [0], 0, z=self._z(), gradient_steps=num_steps)

    def predict(self) -> Tensor:
        """One model call of a sample, with guidance if the options have it."""
        texts = [self._text()] * (2 if self.pipeline.sampler.settings.guided else 1)
        rows = stack_texts(texts, self._z(), self.model)
        channels, *shape = self._size.latent_shape
        inputs = self._made(len(texts), 3 * channels, *shape)
        return self.model(inputs, self._made(len(texts)), rows.rows, encoder_attention_mask=rows.mask)

    def decode(self) -> Tensor:
        return decode_pixels(self._vae, self._made(1, *self._size.latent_shape))

    def _text(self) -> Tensor:
        width = self.model.config.caption_channels
        return torch.empty(self._options.max_length, width, dtype=self._dtype)

    def _z(self) -> Tensor | None:
        rows = self._request.num_rows
        return (
            self._made(rows, self.model.config.caption_channels).requires_grad_(self._request.trains) if rows else None
        )

    @staticmethod
    def _made(*shape: int) -> Tensor:
        return torch.empty(shape, device=_META)
