"""SDXL's pictures: diffusers' own pipelines are the reference, to the bit."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from diffusers import (
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    HeunDiscreteScheduler,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLPipeline,
)
from mora_env_sd3.image_generator import ImageGenerator, PictureRequest, _to_uint8, posterior_seed
from mora_env_sd3.sdxl.agent import SdxlAgent
from mora_env_sd3.sdxl.options import SdxlOptions
from mora_env_sd3.sdxl.renderer import Denoiser, XlRenderer
from mora_env_sd3.unet.sampler_steps import _STEP_NOISE
from torch import Tensor

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning")
PROMPT = "a red circle moves left"
SEED = 5
COMMON = {"num_inference_steps": 3, "guidance_scale": 3.0, "output_type": "pt"}
SIZES = {
    "original_size": (64, 48),
    "crops_coords_top_left": (4, 8),
    "target_size": (32, 40),
    "negative_original_size": (16, 24),
    "negative_crops_coords_top_left": (2, 1),
    "negative_target_size": (24, 16),
}


def rendered(agent: SdxlAgent, negative: str | None = None, **changes: Any) -> Tensor:
    """In [0, 1], as pipelines give it."""
    with torch.no_grad():
        made = agent.renderer.render(None, [agent._guided(PROMPT, negative)], [SEED], agent.settings(**changes))
    return (made * 0.5 + 0.5).clamp(0, 1)


def noise(agent: SdxlAgent) -> Tensor:
    return agent.renderer.initial_latents([SEED], agent.settings())


def changed(agent: SdxlAgent, picture: Tensor, strength: float) -> Tensor:
    """In one pass: where every sample of a batch runs alone, both halves of guidance do too, with other last bits."""
    request = PictureRequest(agent._guided(PROMPT, None), SEED, picture)
    generator = ImageGenerator(agent.renderer, batch_invariant=False)
    return generator.generate(
        [request], agent.settings(), strength=strength, z=None, on_step=lambda *_: None, given_up=frozenset
    )[0]


def agent_with(xl_options: dict[str, Any], **changes: Any) -> SdxlAgent:
    return SdxlAgent(SdxlOptions(**{**xl_options, **changes}), torch.device("cpu"))


@pytest.mark.parametrize("negative", [None, "", "blue square"])
def test_a_picture_has_the_bits_of_the_published_pipeline(
    xl_agent: SdxlAgent, pipeline: StableDiffusionXLPipeline, negative: str | None
) -> None:
    expected = pipeline(PROMPT, negative_prompt=negative, height=32, width=32, latents=noise(xl_agent), **COMMON).images
    assert torch.equal(rendered(xl_agent, negative), expected)


def test_without_guidance_too(xl_agent: SdxlAgent, pipeline: StableDiffusionXLPipeline) -> None:
    settings = {**COMMON, "guidance_scale": 1.0}
    expected = pipeline(PROMPT, height=32, width=32, latents=noise(xl_agent), **settings).images
    assert torch.equal(rendered(xl_agent, guidance_scale=1.0), expected)


def test_an_absent_negative_prompt_is_zeros_and_an_empty_one_is_encoded(xl_agent: SdxlAgent) -> None:
    assert not torch.equal(rendered(xl_agent, None), rendered(xl_agent, ""))


def test_size_and_crop_reach_the_model_as_in_the_published_pipeline(
    xl_options: dict[str, Any], xl_agent: SdxlAgent, pipeline: StableDiffusionXLPipeline
) -> None:
    told = agent_with(xl_options, **SIZES)
    expected = pipeline(PROMPT, height=32, width=32, latents=noise(told), **COMMON, **SIZES).images
    made = rendered(told)
    assert torch.equal(made, expected)
    assert not torch.equal(made, rendered(xl_agent)), "the values change the picture"


def test_half_of_the_negative_sizes_has_no_effect_as_in_the_published_pipeline(
    xl_options: dict[str, Any], pipeline: StableDiffusionXLPipeline
) -> None:
    half = {"crops_coords_top_left": (4, 8), "negative_original_size": (16, 24)}
    told = agent_with(xl_options, **half)
    expected = pipeline(PROMPT, height=32, width=32, latents=noise(told), **COMMON, **half).images
    assert torch.equal(rendered(told), expected)


@pytest.mark.parametrize(
    "scheduler", [DDPMScheduler, DPMSolverMultistepScheduler, EulerAncestralDiscreteScheduler, HeunDiscreteScheduler]
)
def test_other_schedulers_of_the_model_folder_do_too(
    xl_agent: SdxlAgent, pipeline: StableDiffusionXLPipeline, scheduler: Any
) -> None:
    own = scheduler.from_config(pipeline.scheduler.config)
    with_own = StableDiffusionXLPipeline(**{**pipeline.components, "scheduler": copy.deepcopy(own)})
    with_own.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(SEED ^ _STEP_NOISE)
    expected = with_own(
        PROMPT, height=32, width=32, latents=noise(xl_agent), generator=generator, **{**COMMON, "output_type": "latent"}
    ).images
    renderer = XlRenderer(Denoiser(xl_agent.module(), own), xl_agent.renderer.autoencoder)  # type: ignore[arg-type]
    expected = renderer.decode(expected)
    with torch.no_grad():
        made = renderer.render(None, [xl_agent._guided(PROMPT, None)], [SEED], xl_agent.settings())
    assert torch.equal(made, expected)


@pytest.mark.parametrize("strength", [0.4, 1.0])
@pytest.mark.parametrize("sizes", [{}, SIZES], ids=["defaults", "sizes"])
def test_a_changed_picture_has_the_bits_of_the_published_pipeline(
    xl_options: dict[str, Any],
    over_pictures: StableDiffusionXLImg2ImgPipeline,
    strength: float,
    sizes: dict[str, tuple[int, int]],
) -> None:
    agent = agent_with(xl_options, num_inference_steps=5, **sizes)
    pixels = torch.rand((1, 3, 32, 32), generator=torch.Generator().manual_seed(0)) * 2.0 - 1.0
    with torch.no_grad():
        latents = agent.renderer.encode(pixels, [posterior_seed(SEED)])
    # the pipeline takes latents as they are, and draws the noise as the agent does
    expected = over_pictures(
        PROMPT, image=latents, strength=strength, generator=torch.Generator().manual_seed(SEED),
        **{**COMMON, "num_inference_steps": 5, "output_type": "latent"}, **sizes,
    ).images  # fmt: skip
    assert torch.equal(changed(agent, pixels[0], strength), _to_uint8(agent.renderer.decode(expected)[0]))


@pytest.mark.parametrize("negative", [None, "blue square"])
def test_base_and_refiner_have_the_bits_of_both_published_pipelines_in_sequence(
    refined_agent: SdxlAgent,
    pipeline: StableDiffusionXLPipeline,
    refining: StableDiffusionXLImg2ImgPipeline,
    negative: str | None,
) -> None:
    settings = {**COMMON, "num_inference_steps": 5, "negative_prompt": negative}
    latents = pipeline(
        PROMPT, height=32, width=32, latents=noise(refined_agent), denoising_end=0.6,
        **{**settings, "output_type": "latent"},
    ).images  # fmt: skip
    expected = refining(PROMPT, image=latents, denoising_start=0.6, **settings).images
    assert torch.equal(rendered(refined_agent, negative), expected)


def test_a_weak_change_is_the_refiner_s_alone(
    refined_agent: SdxlAgent, refining: StableDiffusionXLImg2ImgPipeline
) -> None:
    pixels = torch.full((1, 3, 32, 32), -0.3)
    with torch.no_grad():
        latents = refined_agent.renderer.encode(pixels, [posterior_seed(SEED)])
    expected = refining(
        PROMPT, image=latents, strength=0.2, generator=torch.Generator().manual_seed(SEED),
        **{**COMMON, "num_inference_steps": 5, "output_type": "latent"},
    ).images  # fmt: skip
    made = changed(refined_agent, pixels[0], 0.2)
    assert torch.equal(made, _to_uint8(refined_agent.renderer.decode(expected)[0]))


def test_a_request_with_a_picture_changes_it_by_its_strength(xl_agent: SdxlAgent) -> None:
    given = torch.full((1, 32, 32, 3), 90, dtype=torch.uint8)
    weak, strong = (xl_agent.image_to_image([PROMPT], [SEED], given, strength)["outputs"] for strength in (0.4, 1.0))
    assert weak.shape == strong.shape == given.shape
    assert not torch.equal(weak, strong)


def test_a_sample_has_the_same_bytes_alone_and_in_any_batch(refined_agent: SdxlAgent) -> None:
    prompts, seeds = [PROMPT, "a blue square", "a green circle"], [1, 2, 3]
    z = refined_agent.modulation_rows("[Mod]", False)["rows"]
    whole = refined_agent.text_to_image(prompts, seeds, z=z)["outputs"]
    for index in range(3):
        alone = refined_agent.text_to_image(prompts[index : index + 1], seeds[index : index + 1], z=z)["outputs"]
        assert torch.equal(alone[0], whole[index])
    assert whole.float().std() > 1
