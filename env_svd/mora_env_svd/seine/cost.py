"""Memory and operations of SEINE's agent, counted on the meta device."""

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
from mora_env_svd.seine import published
from mora_env_svd.seine.conditioning import MaskedFrameCoder, frames_of
from mora_env_svd.seine.models import SeineUNet
from mora_env_svd.seine.objective import TransitionObjective, stack_texts
from mora_env_svd.seine.options import SeineOptions
from mora_env_svd.seine.pipeline import ClipPlan, GivenFramesPipeline, SamplingSettings

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_META = torch.device("meta")


def seine_cost(options: SeineOptions, request: CostRequest) -> AgentCost:
    """Return what the agent costs with these options; every prompt has the same length."""
    clip = _Clip(options, request)
    has_backward = request.trains or request.passes_gradient
    target, first_frame, prediction, decoding = (
        measured_call(part, with_backward=False)
        for part in (clip.encode_target, clip.encode_first_frame, clip.predict, clip.decode)
    )
    step = measured_call(clip.step, modules=[clip.model], with_backward=has_backward)
    # the first steps of `forward` have no gradient and are all alike, so only the last of them runs here
    num_skipped = 0 if request.has_loss else options.num_inference_steps - clip.num_measured_steps
    skipped = prediction.repeated(num_skipped).forward * request.batch_size
    step = step.model_copy(update={"forward": step.forward + skipped})
    sample = in_sequence(first_frame, prediction.repeated(options.num_inference_steps), decoding)
    return with_trained_counts(AgentCost(prepare=target, step=step, sample=sample), clip.model)


class _Clip:
    """The calls of the agent, with models and inputs that have shapes but no values."""

    def __init__(self, options: SeineOptions, request: CostRequest) -> None:
        self._options = options
        self._request = request
        self._size = ClipSize(options.num_frames, options.height, options.width)
        self.model, self._coder = _sized_models(options)
        with _META:  # where adapters are made
            select_trainable(self.model, request.trainable)
        self._coder.grey(self._size)  # computed once, so it is no part of a call
        self._objective = TransitionObjective(self.model, self._coder, self._size, options.training_masks)
        steps = options.gradient_steps
        self._num_gradient_steps = options.num_inference_steps if steps == "all" else steps or 0
        self.num_measured_steps = min(max(self._num_gradient_steps + 1, 2), options.num_inference_steps)
        sampling = SamplingSettings(options.sample_method, self.num_measured_steps, options.guidance_scale)
        self._pipeline = GivenFramesPipeline(self.model, self._coder, self._size, sampling)

    def encode_target(self) -> Tensor:
        """The posterior of a target clip."""
        return self._coder.posterior(self._pictures(self._size.frames)).mean

    def encode_first_frame(self) -> Tensor:
        return self._coder.posterior(self._pictures(1)).mean

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
        channels, frames, h, w = self._size.latent_shape
        target = Posterior(self._made(frames, channels, h, w), self._made(frames, channels, h, w))
        return self._objective.loss(self._z(), [self._text()] * size, images, [target] * size, list(range(size)))

    def _frames(self, image: Tensor) -> Tensor:
        plan = ClipPlan(self._text(), self._text(), image, (0,), 0, self._z())
        return self._pipeline.pixels(plan, self._num_gradient_steps)

    def predict(self) -> Tensor:
        """One model call of a sample: guidance makes it a batch of two."""
        text = stack_texts([self._text()] * 2, self._z(), self.model)
        sample = self._made(2, self.model.config.in_channels, *self._size.latent_shape[1:]).to(self.model.dtype)
        return self.model(sample, self._made(2), text)

    def decode(self) -> Tensor:
        latents = frames_of(self._made(1, *self._size.latent_shape))
        return torch.cat([self._coder.decoded(piece) for piece in self._coder.pieces(latents)])

    def _pictures(self, number: int) -> Tensor:
        return self._made(number, 3, self._size.height, self._size.width)

    def _text(self) -> Tensor:
        return self._made(published.TEXT_LENGTH, self.model.config.cross_attention_dim)

    def _z(self) -> Tensor | None:
        rows = self._request.num_rows
        if not rows:
            return None
        return self._made(rows, self.model.config.cross_attention_dim).requires_grad_(self._request.trains)

    @staticmethod
    def _made(*shape: int) -> Tensor:
        return torch.empty(shape, device=_META)


def _sized_models(options: SeineOptions) -> tuple[SeineUNet, MaskedFrameCoder]:
    """The models on the meta device, set as the agent sets them."""
    from diffusers import AutoencoderKL

    with _META:
        model = SeineUNet.from_config(_config(Path(options.model), {})).to(_DTYPES[options.dtype])
        vae = AutoencoderKL.from_config(_config(Path(options.base) / "vae", published.VAE))
    model.gradient_checkpointing = options.gradient_checkpointing
    if options.vae_dtype != "float32":  # diffusers warns about every cast
        vae = vae.to(_DTYPES[options.vae_dtype])
    vae = vae.eval().requires_grad_(False)
    return model, MaskedFrameCoder(vae, options.decoded_at_once, recomputes=options.gradient_checkpointing)


def _config(folder: Path, otherwise: dict[str, Any]) -> dict[str, Any]:
    """The config.json of a folder, or the published one where the folder is a name on the Hub or has none."""
    path = folder / "config.json"
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else otherwise
