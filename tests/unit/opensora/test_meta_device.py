"""The video model with the meta device in place of a GPU: an operation on tensors of two devices raises.

Nothing of the product is patched, so these tests also fail when the host waits for a number on the device, which the
meta device does not have.
"""

from __future__ import annotations

import pytest
import torch
from mora_env_opensora.conditioning import ClipSize
from mora_env_opensora.models import CausalVAEModel, OpenSoraInpaint
from mora_env_opensora.objective import LossSettings, Target, VideoObjective
from mora_env_opensora.pipelines import GivenFramesPipeline, SamplingSettings
from mora_env_opensora.pipelines.pixels import frames_to_pixels
from mora_env_opensora.pipelines.schedulers import SchedulerName
from mora_env_opensora.tiny import VAE_CONFIG
from torch import Tensor

_DEVICE = torch.device("meta")
_SIZE = ClipSize(37, 256, 272)  # four tiles for each of two chunks of time
_WIDTH = 4096  # of the text encoder's rows


@pytest.fixture(scope="module")
def model() -> OpenSoraInpaint:
    with _DEVICE:
        return OpenSoraInpaint.from_config({"num_layers": 2}).to(torch.bfloat16)


@pytest.fixture(scope="module")
def vae() -> CausalVAEModel:
    with _DEVICE:
        vae = CausalVAEModel.from_config(VAE_CONFIG).requires_grad_(False)
    vae.enable_tiling()
    return vae


def _rows(length: int) -> Tensor:
    """A prompt's rows, which the text cache keeps on the CPU."""
    return torch.randn(length, _WIDTH, dtype=torch.bfloat16)


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("lengths", [(30,), (30, 40)], ids=["one prompt", "prompts of different lengths"])
def test_loss_and_backward_stay_on_the_device(
    model: OpenSoraInpaint, vae: CausalVAEModel, lengths: tuple[int, ...], recompute: bool
) -> None:
    model.gradient_checkpointing = recompute
    vae.enable_gradient_checkpointing(recompute)
    batch = len(lengths)
    z = torch.randn(4, _WIDTH, device=_DEVICE, requires_grad=True)
    images = torch.randn(batch, 3, _SIZE.height, _SIZE.width, device=_DEVICE, requires_grad=True)
    targets = [Target(torch.randn(_SIZE.latent_shape), torch.rand(_SIZE.latent_shape)) for _ in lengths]
    objective = VideoObjective(model, vae, _SIZE, LossSettings())
    loss = objective.loss(z, [_rows(length) for length in lengths], images, targets, list(range(batch)))
    gradients = torch.autograd.grad(loss, [z, images, *model.parameters()])
    assert loss.device == _DEVICE
    assert {gradient.device for gradient in gradients} == {_DEVICE}
    assert (loss.dtype, gradients[0].dtype, gradients[1].dtype) == (torch.float32,) * 3


@pytest.mark.parametrize(
    ("scheduler", "num_steps"),
    [("pndm", 4), ("euler_ancestral", 2), ("euler", 2), ("ddim", 2), ("ddpm", 2), ("dpm_solver", 2)],
)
def test_samplers_stay_on_the_device(
    model: OpenSoraInpaint, vae: CausalVAEModel, scheduler: SchedulerName, num_steps: int
) -> None:
    settings = SamplingSettings(scheduler, num_steps, 7.5, "epsilon")
    pipeline = GivenFramesPipeline(model, vae, _SIZE, settings, allocate=_on_the_device)
    first = torch.randn(1, 3, _SIZE.height, _SIZE.width)
    frames = pipeline.sample(_rows(30), _rows(40), [first], [0], 3, z=torch.randn(4, _WIDTH, device=_DEVICE))
    assert tuple(frames.shape) == (_SIZE.frames, _SIZE.height, _SIZE.width, 3)


def test_finished_frames_have_a_gradient_on_the_device(model: OpenSoraInpaint, vae: CausalVAEModel) -> None:
    model.gradient_checkpointing = True
    vae.enable_gradient_checkpointing()
    pipeline = GivenFramesPipeline(model, vae, _SIZE, SamplingSettings("ddim", 2, 7.5, "epsilon"))
    z = torch.randn(4, _WIDTH, device=_DEVICE, requires_grad=True)
    first = torch.randn(1, 3, _SIZE.height, _SIZE.width, device=_DEVICE, requires_grad=True)
    frames = pipeline.pixels(_rows(30), _rows(40), [first], [0], 3, z=z, gradient_steps=1)
    gradients = torch.autograd.grad(frames.square().sum(), [z, first])
    assert {frames.device, *(gradient.device for gradient in gradients)} == {_DEVICE}


def test_a_target_is_converted_on_the_device(vae: CausalVAEModel) -> None:
    pixels = frames_to_pixels(
        torch.zeros(_SIZE.frames, _SIZE.height, _SIZE.width, 3, dtype=torch.uint8, device=_DEVICE), 480, 640
    )
    with torch.no_grad():
        posterior = vae.encode(pixels.transpose(0, 1)[None])
    assert {pixels.device, posterior.mean.device} == {_DEVICE}


def _on_the_device(shape: object, dtype: torch.dtype) -> Tensor:
    """Finished frames on the meta device, from which no copy to the CPU is possible."""
    return torch.empty(tuple(shape), dtype=dtype, device=_DEVICE)  # type: ignore[arg-type]
