"""The image agents with the meta device in place of a GPU: an operation on tensors of two devices raises.

Nothing of the product is patched, so these tests also fail when the host waits for a number on the device, which the
meta device does not have.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel
from mora_env_sd3.agent import Sd3Agent
from mora_env_sd3.image_generator import GuidedText, ImageGenerator, PictureRequest
from mora_env_sd3.image_to_image import ImageToImageRenderer
from mora_env_sd3.options import Sd3Options
from mora_env_sd3.renderer import FeatureMap, Renderer, RenderSettings
from mora_env_sd3.text_encoders import TextEmbedding

_DEVICE = torch.device("meta")
_WIDTH, _POOLED = 4096, 2048
_SETTINGS = RenderSettings(480, 640, 3, 7.0, 1)
# of the published model, but for the number of layers
_TRANSFORMER = {
    "sample_size": 128, "patch_size": 2, "in_channels": 16, "num_layers": 2, "attention_head_dim": 64,
    "num_attention_heads": 24, "joint_attention_dim": _WIDTH, "caption_projection_dim": 1536,
    "pooled_projection_dim": _POOLED, "out_channels": 16, "pos_embed_max_size": 192,
}  # fmt: skip
_VAE = {
    "down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4,
    "block_out_channels": [128, 256, 512, 512], "layers_per_block": 2, "latent_channels": 16,
    "use_quant_conv": False, "use_post_quant_conv": False, "scaling_factor": 1.5305, "shift_factor": 0.0609,
}  # fmt: skip


@pytest.fixture(scope="module", params=[False, True], ids=["kept", "recomputed"])
def renderer(request: pytest.FixtureRequest) -> Renderer:
    with _DEVICE:
        transformer = SD3Transformer2DModel(**_TRANSFORMER).to(torch.bfloat16)
        vae = AutoencoderKL(in_channels=3, out_channels=3, **_VAE).to(torch.bfloat16).requires_grad_(False)
    if request.param:
        transformer.enable_gradient_checkpointing()
        transformer.train()
    transformer.mora_feature_map = FeatureMap(_WIDTH, _DEVICE, torch.bfloat16)
    return Renderer(transformer, vae, FlowMatchEulerDiscreteScheduler(shift=3.0))


def embedding() -> TextEmbedding:
    make = {"device": _DEVICE, "dtype": torch.bfloat16}
    return TextEmbedding(torch.empty(333, _WIDTH, **make), torch.empty(_POOLED, **make))


def modulation() -> torch.Tensor:
    return torch.empty(4, _WIDTH, device=_DEVICE, requires_grad=True)


@pytest.mark.parametrize("position", ["after", "feature"])
@pytest.mark.parametrize("gradient_steps", [1, 3])
def test_pictures_and_their_gradients_stay_on_the_device(
    renderer: Renderer, position: str, gradient_steps: int
) -> None:
    z = modulation()
    settings = replace(_SETTINGS, position=position, gradient_steps=gradient_steps)
    images = renderer.render(z, [embedding(), embedding()], embedding(), [1, 2], settings)
    weights = [p for name, p in renderer.transformer.named_parameters() if name.endswith("to_q.weight")]
    gradients = torch.autograd.grad(images.sum(), [z, *weights])
    assert (images.device, images.dtype, tuple(images.shape)) == (_DEVICE, torch.float32, (2, 3, 480, 640))
    assert {gradient.device for gradient in gradients} == {_DEVICE}


def test_the_own_loss_and_its_gradient_stay_on_the_device(renderer: Renderer) -> None:
    z = modulation()
    frames = torch.empty(2, 3, 480, 640, device=_DEVICE)
    loss = renderer.own_loss(z, [embedding(), embedding()], frames, [1, 2], _SETTINGS)
    (gradient,) = torch.autograd.grad(loss, z)
    assert (loss.device, loss.dtype) == (_DEVICE, torch.float32)
    assert gradient.device == _DEVICE


@pytest.mark.parametrize("size", [(480, 640), (96, 128)])
def test_changed_pictures_and_the_gradient_of_the_given_ones_stay_on_the_device(
    renderer: Renderer, size: tuple[int, int]
) -> None:
    z, images = modulation(), torch.empty(1, 3, *size, device=_DEVICE, requires_grad=True)
    changed = ImageToImageRenderer(renderer).render(z, [embedding()], embedding(), [1], images, 0.7, _SETTINGS)
    gradients = torch.autograd.grad(changed.sum(), [z, images])
    assert {changed.device, *(gradient.device for gradient in gradients)} == {_DEVICE}


@pytest.mark.parametrize("strength", [1.0, 0.7])
def test_pictures_for_requests_are_made_on_the_device(renderer: Renderer, strength: float) -> None:
    picture = None if strength == 1.0 else torch.empty(3, 480, 640, device=_DEVICE)
    requests = [PictureRequest(GuidedText(embedding(), embedding()), seed, picture) for seed in (1, 2, 3)]
    steps: list[int] = []
    made = ImageGenerator(renderer).generate(
        requests, _SETTINGS, strength=strength, z=modulation(), on_step=lambda step, _: steps.append(step),
        given_up=lambda: frozenset({1}) if len(steps) > 1 else frozenset(),
    )  # fmt: skip
    assert sorted(made) == [0, 2], "the cancelled sample is left out"
    assert {(each.device, each.dtype, tuple(each.shape)) for each in made.values()} == {
        (_DEVICE, torch.uint8, (480, 640, 3))
    }


def test_the_agent_computes_images_and_its_loss_on_the_device(options: Sd3Options) -> None:
    agent = Sd3Agent(options, _DEVICE)
    keys = agent.encode(["a red circle", "a blue square"])["keys"]
    pixels = torch.zeros(2, options.height, options.width, 3, dtype=torch.uint8)  # stays on the host
    targets = [agent.store_target(pixels)["key"]] * 2
    width = agent.module().config.joint_attention_dim
    z = torch.empty(4, width, device=_DEVICE, requires_grad=True)
    made = agent.forward(z, keys, [1, 2], targets)
    gradients = torch.autograd.grad(made["images"].sum() + made["loss"], z)
    assert {made["images"].device, made["loss"].device, gradients[0].device} == {_DEVICE}
