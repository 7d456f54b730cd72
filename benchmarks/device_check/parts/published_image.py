"""The image model at published size, with random weights: a picture and its backward pass, with their stages.

The first pass measures memory, which the check compares with the plan of `--dry-run`. The second one measures times.
In a dry run the model is the tiny one.
"""

from __future__ import annotations

import torch
from mora_env_sd3.__main__ import KINDS
from mora_env_sd3.cost import published
from mora_env_sd3.cost.sized_models import DTYPES, sized_renderer
from mora_env_sd3.options import Sd3Options
from mora_env_sd3.renderer import RenderSettings
from mora_env_sd3.text_encoders import TextEmbedding
from mora_runtime.schema import read_settings

from benchmarks.device_check.device_memory import call_memory
from benchmarks.device_check.figures import Figures
from benchmarks.device_check.outcome import CheckFailed
from benchmarks.device_check.request import Request
from benchmarks.device_check.seconds import Stages
from benchmarks.device_check.server_kernels import server_kernels


def run(request: Request, figures: Figures) -> None:
    """Measure memory, then times."""
    options = read_settings(KINDS["sd3"].options, request.options, source="the image agent's options")
    with server_kernels(request):
        torch.manual_seed(0)
        picture = PictureStep(options, request.torch_device, num_rows=request.work["num_rows"])
        figures.add(size=[options.height, options.width], dtype=options.dtype, num_steps=options.num_inference_steps)
        figures.add(num_parameters=sum(p.numel() for p in picture.transformer.parameters()))
        figures.add(memory=call_memory(picture.render, request.torch_device, modules=[picture.transformer]))
        picture.transformer.zero_grad(set_to_none=True)
        figures.add(stages_s=picture.stages())
        if not picture.gradient_is_finite():
            raise CheckFailed("expected a finite gradient of z, got another")


class PictureStep:
    """The image agent's work on one sample, with random inputs."""

    def __init__(self, options: Sd3Options, device: torch.device, num_rows: int) -> None:
        self._device = device
        self._renderer = sized_renderer(options, device)
        self.transformer, self._vae = self._renderer.transformer, self._renderer.vae
        steps = options.num_inference_steps if options.gradient_steps == "all" else options.gradient_steps
        self._settings = RenderSettings(
            options.height, options.width, options.num_inference_steps, options.guidance_scale, steps, options.position
        )
        num_tokens = published.NUM_CLIP_TOKENS + options.max_sequence_length
        self._text = self._embedding(num_tokens, DTYPES[options.dtype])
        self._z = torch.randn(num_rows, self.transformer.config.joint_attention_dim, device=device).requires_grad_()

    def render(self) -> torch.Tensor:
        """One picture, by the renderer that the agent uses."""
        return self._renderer.render(self._z, [self._text], self._text, [0], self._settings)

    def stages(self) -> dict[str, float]:
        """Seconds of the parts of a picture and its backward."""
        watched = Stages(self._device)
        watched.watch(self.transformer, "forward", "transformer_forward")
        watched.watch(self._vae, "decode", "decode")
        with watched.stage("render"):
            image = self.render()
        with watched.stage("backward"):
            image.mean().backward()  # type: ignore[no-untyped-call]
        return watched.rounded()

    def gradient_is_finite(self) -> bool:
        return self._z.grad is not None and bool(self._z.grad.isfinite().all())

    def _embedding(self, num_tokens: int, dtype: torch.dtype) -> TextEmbedding:
        config = self.transformer.config
        joint = torch.randn(num_tokens, config.joint_attention_dim, device=self._device, dtype=dtype)
        return TextEmbedding(joint, torch.randn(config.pooled_projection_dim, device=self._device, dtype=dtype))
