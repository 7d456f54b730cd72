"""A tiny Stable Diffusion XL with a refiner, made once for these tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionXLImg2ImgPipeline, StableDiffusionXLPipeline
from mora_env_sd3.sdxl.agent import SdxlAgent
from mora_env_sd3.sdxl.options import SdxlOptions
from mora_env_sd3.sdxl.tiny import make_tiny_refiner, tiny_sdxl


@pytest.fixture(scope="session")
def xl_options(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Options of the tiny model, without its refiner."""
    return tiny_sdxl(tmp_path_factory.mktemp("tiny") / "sdxl")


@pytest.fixture(scope="session")
def refiner(xl_options: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny") / "refiner"
    make_tiny_refiner(folder, Path(xl_options["model"]))
    return folder


@pytest.fixture(scope="session")
def xl_agent(xl_options: dict[str, Any]) -> SdxlAgent:
    return SdxlAgent(SdxlOptions(**xl_options), torch.device("cpu"))


@pytest.fixture(scope="session")
def refined_agent(xl_options: dict[str, Any], refiner: Path) -> SdxlAgent:
    """Of five steps, the refiner takes the last two; one step of the base model has a gradient."""
    changes = {"refiner": str(refiner), "high_noise_share": 0.6, "num_inference_steps": 5, "gradient_steps": 1}
    return SdxlAgent(SdxlOptions(**{**xl_options, **changes}), torch.device("cpu"))


@pytest.fixture(scope="session")
def pipeline(xl_options: dict[str, Any]) -> StableDiffusionXLPipeline:
    found = StableDiffusionXLPipeline.from_pretrained(xl_options["model"], add_watermarker=False)
    found.set_progress_bar_config(disable=True)
    return found


@pytest.fixture(scope="session")
def over_pictures(pipeline: StableDiffusionXLPipeline) -> StableDiffusionXLImg2ImgPipeline:
    found = StableDiffusionXLImg2ImgPipeline(**pipeline.components, add_watermarker=False)
    found.set_progress_bar_config(disable=True)
    return found


@pytest.fixture(scope="session")
def refining(refiner: Path, pipeline: StableDiffusionXLPipeline) -> StableDiffusionXLImg2ImgPipeline:
    found = StableDiffusionXLImg2ImgPipeline.from_pretrained(refiner, vae=pipeline.vae, add_watermarker=False)
    found.set_progress_bar_config(disable=True)
    # torch has other kernels on the CPU for weights without gradient, and their last bits differ
    found.unet.requires_grad_(False)
    return found
