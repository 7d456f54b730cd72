"""Sampling compared with the pipeline of diffusers itself: the same weights, seed and settings give the same bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableVideoDiffusionPipeline
from mora_env_svd.clip_pipeline import nothing_before
from mora_env_svd.svd.agent import SvdAgent
from mora_env_svd.svd.conditioning import resampled, signed
from mora_env_svd.svd.options import SvdOptions
from mora_env_svd.svd.picture_encoder import PictureEncoder, squared
from mora_env_svd.svd.pipeline import ClipPlan
from PIL import Image
from torch import Tensor
from transformers import CLIPImageProcessorPil

# numpy warns about how the scheduler of diffusers reads a tensor
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
SEED = 5
CASES: dict[str, dict[str, Any]] = {
    "defaults": {"num_inference_steps": 3},
    "all options": {
        "num_inference_steps": 2, "fps": 12, "motion_bucket_id": 40, "noise_aug_strength": 0.3,
        "min_guidance_scale": 0.5, "max_guidance_scale": 4.0, "decode_chunk_size": 2, "num_frames": 6, "width": 48,
    },
    "without guidance": {"num_inference_steps": 2, "max_guidance_scale": 1.0},
}  # fmt: skip


def picture(height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(height * width)
    return torch.randint(0, 256, (height, width, 3), dtype=torch.uint8, generator=generator)


def reference(agent: SvdAgent) -> StableVideoDiffusionPipeline:
    models = agent._models
    pipeline = StableVideoDiffusionPipeline(
        vae=models.coder.vae, image_encoder=models.encoder.model, unet=models.unet, scheduler=models.scheduler,
        feature_extractor=CLIPImageProcessorPil(),
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.mark.parametrize("size", [(32, 32), (50, 40)], ids=["of the clip's size", "of another size"])
@pytest.mark.parametrize("case", CASES)
def test_latents_pixels_and_bytes_equal_those_of_diffusers(
    tiny_svd: dict[str, Any], case: str, size: tuple[int, int]
) -> None:
    options = SvdOptions(**(tiny_svd | CASES[case]))
    agent = SvdAgent.from_options(options, torch.device("cpu"))
    own, given = agent._pipeline(None, None), picture(*size)
    plan = ClipPlan(signed(resampled(given, agent._size)[None]), signed(given[None]), SEED)
    call: dict[str, Any] = {
        "image": Image.fromarray(given.numpy()), "height": options.height, "width": options.width,
        "num_frames": options.num_frames, "num_inference_steps": options.num_inference_steps, "fps": options.fps,
        "min_guidance_scale": options.min_guidance_scale, "max_guidance_scale": options.max_guidance_scale,
        "motion_bucket_id": options.motion_bucket_id, "noise_aug_strength": options.noise_aug_strength,
        "decode_chunk_size": options.decode_chunk_size,
    }  # fmt: skip
    pipeline = reference(agent)

    def expected(output_type: str, **more: Any) -> Any:
        generator = torch.Generator().manual_seed(SEED)
        return pipeline(**call, generator=generator, output_type=output_type, **more).frames[0]

    with torch.no_grad():
        assert torch.equal(own._latents(plan, None, nothing_before, None), expected("latent"))
        pixels = own.pixels(plan, options.num_inference_steps)
    assert torch.equal((pixels * 0.5 + 0.5).clamp(0.0, 1.0), expected("pt", latents=own.initial_noise(SEED)))
    frames = torch.stack([torch.from_numpy(np.array(frame)) for frame in expected("pil")])
    assert torch.equal(agent.image_to_video(["ignored"], [SEED], given[None])["outputs"][0], frames)


def test_a_request_overrides_steps_and_the_guidance_of_the_last_frame(tiny_svd: dict[str, Any]) -> None:
    agent = SvdAgent.from_options(SvdOptions(**tiny_svd), torch.device("cpu"))
    given = picture(32, 32)
    generator = torch.Generator().manual_seed(SEED)
    frames = reference(agent)(
        Image.fromarray(given.numpy()), height=32, width=32, num_frames=5, num_inference_steps=1, decode_chunk_size=3,
        max_guidance_scale=6.0, generator=generator,
    ).frames[0]  # fmt: skip
    made = agent.image_to_video([""], [SEED], given[None], num_inference_steps=1, guidance_scale=6.0)["outputs"][0]
    assert torch.equal(made, torch.stack([torch.from_numpy(np.array(frame)) for frame in frames]))


def test_embeddings_have_a_gradient_and_equal_those_of_the_feature_extractor(tiny_svd: dict[str, Any]) -> None:
    agent = SvdAgent.from_options(SvdOptions(**tiny_svd), torch.device("cpu"))
    encoder, given = agent._models.encoder, signed(picture(50, 40)[None])
    expected = reference(agent)._encode_image(Image.fromarray(picture(50, 40).numpy()), "cpu", 1, False)
    assert torch.equal(encoder.embeddings(given), expected)
    for recomputes in (False, True):
        leaf = given.clone().requires_grad_()
        again = PictureEncoder(encoder.model, encoder._mean.flatten().tolist(), encoder._std.flatten().tolist(),
                               recomputes=recomputes)  # fmt: skip
        again.embeddings(leaf).square().sum().backward()
        assert leaf.grad is not None
        assert leaf.grad.abs().amax(dim=(0, 1)).gt(0).all(), "every pixel has an effect"
    assert squared(given).shape == (1, 3, 224, 224)
