"""Sampling equals diffusers' own pipeline, bit for bit, with the same weights, noise, texts and settings."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, WanImageToVideoPipeline
from diffusers.pipelines.wan import pipeline_wan_i2v
from mora_env_svd.wan.models import WanModels, load_models
from mora_env_svd.wan.options import WanOptions
from mora_env_svd.wan.pipeline import ClipPlan, SamplingSettings
from mora_env_svd.wan.text import Umt5Text, cleaned
from PIL import Image
from torch import Tensor

CPU = torch.device("cpu")
PICTURES = torch.randint(0, 256, (2, 40, 72, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
PROMPTS = ("a red cat moves left", "dark")
LENGTH = 512  # of the text: with another one, diffusers' attention of Wan 2.1 takes rows of text for the picture


def options_for(folder: Path, layout: str, **changes: Any) -> WanOptions:
    return WanOptions(
        **{"model": str(folder / layout), "num_frames": 9, "height": 32, "width": 64, "guidance_scale": 3.0} | changes
    )


def library(options: WanOptions) -> WanImageToVideoPipeline:
    pipeline = WanImageToVideoPipeline.from_pretrained(options.model)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def texts_of(options: WanOptions) -> tuple[Tensor, Tensor]:
    encoder = Umt5Text(options.model, torch.float32, CPU, LENGTH)
    return encoder.rows_of(PROMPTS[0]), encoder.rows_of(PROMPTS[1])


def expected_frames(
    options: WanOptions, models: WanModels, seed: int, num_steps: int, *, has_last: bool = False
) -> Tensor:
    """The clip of diffusers' pipeline, (F, 3, H, W) in [0, 1]."""
    text, negative = (models.denoiser.text([rows], None) for rows in texts_of(options))
    noise = torch.randn((1, *models.conditioner.size.latent_shape), generator=torch.Generator().manual_seed(seed))
    images = [Image.fromarray(picture.numpy()) for picture in PICTURES]
    found: Tensor = library(options)(
        image=images[0],
        last_image=images[1] if has_last else None,
        prompt_embeds=text,
        negative_prompt_embeds=negative,
        height=options.height,
        width=options.width,
        num_frames=options.num_frames,
        num_inference_steps=num_steps,
        guidance_scale=options.guidance_scale,
        latents=noise,
        output_type="pt",
    ).frames[0]
    return found


@torch.no_grad()
def our_frames(options: WanOptions, models: WanModels, seed: int, num_steps: int, *, has_last: bool = False) -> Tensor:
    text, negative = texts_of(options)
    given = models.conditioner.of_bytes(list(PICTURES)[: 1 + has_last])
    pipeline = models.pipeline(SamplingSettings(num_steps, options.guidance_scale))
    pixels = pipeline.pixels(ClipPlan(text, negative, given, seed), 0)
    clip = pipeline.sample(ClipPlan(text, negative, given, seed))
    frames = pixels.clamp(-1.0, 1.0) * 0.5 + 0.5
    assert torch.equal(clip, (frames * 255.0 + 0.5).to(torch.uint8).permute(0, 2, 3, 1))
    return frames


@pytest.mark.parametrize(
    ("layout", "has_last"), [("i2v", False), ("flf2v", True), ("a14b", False), ("a14b", True), ("ti2v", False)]
)
def test_clips_have_the_bits_of_diffusers(tiny_wan_folder: Path, layout: str, has_last: bool) -> None:
    options = options_for(tiny_wan_folder, layout)
    models = load_models(options, CPU)
    expected = expected_frames(options, models, 3, 3, has_last=has_last)
    assert torch.equal(our_frames(options, models, 3, 3, has_last=has_last), expected)
    assert expected.std() > 0.01


def test_clips_of_another_scheduler_without_guidance_have_the_bits_of_diffusers(
    tiny_wan_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_wan_folder / "i2v", tmp_path / "i2v")
    FlowMatchEulerDiscreteScheduler(shift=5.0).save_pretrained(tmp_path / "i2v" / "scheduler")
    index = tmp_path / "i2v" / "model_index.json"
    content = json.loads(index.read_text()) | {"scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"]}
    index.write_text(json.dumps(content))
    options = options_for(tmp_path, "i2v", guidance_scale=1.0)
    models = load_models(options, CPU)
    assert torch.equal(our_frames(options, models, 5, 3), expected_frames(options, models, 5, 3))


def test_the_option_flow_shift_replaces_that_of_the_scheduler(tiny_wan_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_wan_folder / "i2v", tmp_path / "i2v")
    path = tmp_path / "i2v" / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"flow_shift": 7.0}))
    own = load_models(options_for(tmp_path, "i2v"), CPU)
    asked = load_models(options_for(tiny_wan_folder, "i2v", flow_shift=7.0), CPU)
    assert asked.scheduler.config.flow_shift == own.scheduler.config.flow_shift == 7.0


@pytest.mark.parametrize("layout", ["i2v", "ti2v"])
def test_the_autoencoder_in_pieces_has_the_bits_of_diffusers(tiny_wan_folder: Path, layout: str) -> None:
    models = load_models(options_for(tiny_wan_folder, layout), CPU)
    vae = library(options_for(tiny_wan_folder, layout)).vae
    clip = torch.rand(1, 3, 9, 32, 64, generator=torch.Generator().manual_seed(2)) * 2.0 - 1.0
    mean, std = (torch.tensor(vae.config[name]).view(1, -1, 1, 1, 1) for name in ("latents_mean", "latents_std"))
    with torch.no_grad():
        latents = models.coder.encoded(clip)
        assert torch.equal(latents, (vae.encode(clip).latent_dist.mode() - mean) * (1.0 / std))
        pieces = list(models.coder.decoded(latents))
        whole = vae.decode(latents / (1.0 / std) + mean).sample[0].transpose(0, 1)
    assert [len(piece) for piece in pieces] == [1, 4, 4]
    assert torch.equal(torch.cat(pieces).clamp(-1.0, 1.0), whole)


@pytest.mark.parametrize("layout", ["i2v", "ti2v"])
def test_recomputed_activations_change_no_gradient(tiny_wan_folder: Path, layout: str) -> None:
    gradients = []
    for recomputes in (False, True):
        models = load_models(options_for(tiny_wan_folder, layout, gradient_checkpointing=recomputes), CPU)
        clip = torch.rand(1, 3, 5, 32, 32, generator=torch.Generator().manual_seed(2)).requires_grad_()
        torch.cat(list(models.coder.decoded(models.coder.encoded(clip)))).square().mean().backward()
        gradients.append(clip.grad)
    assert gradients[0].abs().amax(dim=(0, 1, 3, 4)).min() > 0
    assert torch.equal(*gradients)


@pytest.mark.parametrize("prompt", ["a red cat", "  a  red &amp;amp; blue\n cat ", "", "a cat " * 600])
def test_texts_have_the_bits_of_diffusers(tiny_wan_folder: Path, monkeypatch: pytest.MonkeyPatch, prompt: str) -> None:
    # the pipeline repairs text with a package that this environment does not have; these prompts need no repair
    monkeypatch.setattr(pipeline_wan_i2v, "ftfy", SimpleNamespace(fix_text=str), raising=False)
    options = options_for(tiny_wan_folder, "i2v")
    rows = Umt5Text(options.model, torch.float32, CPU, LENGTH).rows_of(prompt)
    with torch.no_grad():  # with gradients attention has another kernel
        expected = library(options)._get_t5_prompt_embeds(prompt, max_sequence_length=LENGTH)
    assert torch.equal(load_models(options, CPU).denoiser.text([rows], None), expected)


def test_quotation_marks_and_composed_characters_are_cleaned() -> None:
    assert cleaned("\u201ca\u201d cafe\u0301\u2019s\tend ") == '"a" caf\u00e9\'s end'


def test_pictures_of_a_chain_are_prepared_like_bytes(tiny_wan_folder: Path) -> None:
    """The same pictures, as bytes and as numbers. Pillow rounds to bytes while it resizes, so bits differ there."""
    options = options_for(tiny_wan_folder, "i2v", height=48, width=80)
    conditioner = load_models(options, CPU).conditioner
    rows, columns = torch.meshgrid(torch.linspace(0, 6, 48), torch.linspace(0, 9, 80), indexing="ij")
    waves = torch.stack([rows.sin(), columns.cos(), (rows + columns).sin()]) * 100.0 + 127.0
    picture = waves.to(torch.uint8)
    of_bytes = conditioner.of_bytes([picture.permute(1, 2, 0).contiguous()])
    (of_numbers,) = conditioner.of_images((picture[None].float() / 255.0) * 2.0 - 1.0)
    assert (of_bytes.pixels - of_numbers.pixels).abs().max() < 1e-6
    difference = (of_bytes.prepared - of_numbers.prepared).abs().max() * 0.26  # in units of the range [0, 1]
    assert difference < 1.1 / 255.0, "two roundings to bytes, each at most half a step"
