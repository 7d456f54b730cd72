"""The video model at published size, with random weights: loss and backward with their stages, and a sampler step.

The first pass measures memory, which the check compares with the plan of `--dry-run`. The second one measures times,
with everything loaded and every algorithm chosen. In a dry run the model is the tiny one.
"""

from __future__ import annotations

import torch
from mora_env_opensora.__main__ import KINDS
from mora_env_opensora.conditioning import ClipSize
from mora_env_opensora.objective import LossSettings, Target, VideoObjective, stack_texts
from mora_env_opensora.options import OpenSoraOptions
from mora_env_opensora.sized_models import DTYPES, sized_models
from mora_runtime.schema import read_settings
from torch import Tensor

from benchmarks.device_check.device_memory import call_memory
from benchmarks.device_check.figures import Figures
from benchmarks.device_check.outcome import CheckFailed
from benchmarks.device_check.request import Request
from benchmarks.device_check.seconds import Stages, median_s
from benchmarks.device_check.server_kernels import server_kernels


def run(request: Request, figures: Figures) -> None:
    """Measure memory, then times."""
    options = read_settings(KINDS["opensora"].options, request.options, source="the video agent's options")
    with server_kernels(request):
        torch.manual_seed(0)
        video = VideoStep(options, request.torch_device, num_rows=request.work["num_rows"])
        figures.add(size=[options.num_frames, options.height, options.width], dtype=options.dtype)
        figures.add(num_parameters=sum(p.numel() for p in video.model.parameters()))
        figures.add(memory=call_memory(video.loss, request.torch_device, modules=[video.model]))
        video.model.zero_grad(set_to_none=True)
        figures.add(stages_s=video.stages())
        if not video.gradients_are_finite():
            raise CheckFailed("expected finite gradients of z and of the first frame, got others")
        with torch.no_grad():
            figures.add(sampler_step_s=round(median_s(request.torch_device, video.sampler_step, rounds=2), 4))
            figures.add(encode_target_s=round(median_s(request.torch_device, video.encode_target, rounds=1), 4))


class VideoStep:
    """The video agent's work on one sample, with random inputs."""

    def __init__(self, options: OpenSoraOptions, device: torch.device, num_rows: int) -> None:
        self._device = device
        self._size = ClipSize(options.num_frames, options.height, options.width)
        self.model, self._vae = sized_models(options, device)
        settings = LossSettings(options.prediction_type, options.snr_gamma, options.noise_offset)
        self._objective = VideoObjective(self.model, self._vae, self._size, settings)
        width = self.model.config.caption_channels
        self._text = self._normal(options.max_length, width).to(DTYPES[options.dtype])
        self._z = self._normal(num_rows, width).requires_grad_()
        self._image = self._normal(1, 3, options.height, options.width).requires_grad_()
        shape = self._size.latent_shape
        self._target = Target(torch.randn(shape), torch.rand(shape))

    def loss(self) -> Tensor:
        """The loss of one sample, by the objective that the agent uses."""
        return self._objective.loss(self._z, [self._text], self._image, [self._target], [0])

    def stages(self) -> dict[str, float]:
        """Seconds of the parts of a loss and its backward."""
        watched = Stages(self._device)
        watched.watch(self._vae, "encode", "encode_condition")
        watched.watch(self.model, "forward", "transformer_forward")
        with watched.stage("loss"):
            loss = self.loss()
        with watched.stage("backward"):
            loss.backward()  # type: ignore[no-untyped-call]
        return watched.rounded()

    def gradients_are_finite(self) -> bool:
        gradients = (self._z.grad, self._image.grad)
        return all(gradient is not None and bool(gradient.isfinite().all()) for gradient in gradients)

    def sampler_step(self) -> Tensor:
        """One model call with guidance; the shorter text makes a mask, as a negative prompt does."""
        text = stack_texts([self._text[: len(self._text) // 2], self._text], self._z, self.model)
        channels, *shape = self._size.latent_shape
        inputs = self._normal(2, 3 * channels, *shape)
        timesteps = torch.full((2,), 500.0, device=self._device)
        predicted: Tensor = self.model(inputs, timesteps, text.rows, encoder_attention_mask=text.mask)
        return predicted

    def encode_target(self) -> Tensor:
        return self._vae.encode(self._normal(1, 3, self._size.frames, self._size.height, self._size.width)).mean

    def _normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, device=self._device)
