"""The training loss equals its formula, and its gradient reaches the first frame by both ways."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from mora_env_svd.errors import InputError
from mora_env_svd.wan.models import WanModels, load_models
from mora_env_svd.wan.objective import FlowObjective, NoiseDraw
from mora_env_svd.wan.options import WanOptions
from torch import Tensor

CPU = torch.device("cpu")
SIDE = {"i2v": 32, "ti2v": 64}


def models_of(folder: Path, layout: str, length: int = 512) -> WanModels:
    side = SIDE[layout]
    options = WanOptions(model=str(folder / layout), num_frames=5, height=side, width=side, max_sequence_length=length)
    return load_models(options, CPU)


def batch_for(models: WanModels, num_samples: int = 2) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    size = models.conditioner.size
    return {
        "z": torch.randn(2, 32, generator=generator),
        "texts": [torch.randn(3 + index, 32, generator=generator) for index in range(num_samples)],
        "images": torch.rand(num_samples, 3, size.height, size.width, generator=generator) * 2.0 - 1.0,
        "targets": [torch.randn(size.latent_shape, generator=generator) for _ in range(num_samples)],
        "seeds": [5, 1_000_003][:num_samples],
    }


def by_hand(folder: Path, layout: str, models: WanModels, batch: dict[str, Any], index: int) -> Tensor:
    """One sample's loss from the description in words, in float64 but for diffusers' models; without z."""
    transformer = WanTransformer3DModel.from_pretrained(folder / layout, subfolder="transformer").eval()
    vae = AutoencoderKLWan.from_pretrained(folder / layout, subfolder="vae").eval()
    draw = NoiseDraw.of(batch["seeds"][index], models.conditioner.size)
    sigma, noise, clean = draw.sigma.double(), draw.noise.double(), batch["targets"][index].double()
    noisy = ((1.0 - sigma) * clean + sigma * noise).float()[None]
    mean, std = (torch.tensor(vae.config[name]).view(1, -1, 1, 1, 1) for name in ("latents_mean", "latents_std"))
    image = batch["images"][index : index + 1, :, None]
    text = torch.zeros(1, 512, 32)
    text[0, : len(batch["texts"][index])] = batch["texts"][index]
    timestep, picture = (sigma * 1000.0).float()[None], None
    if layout == "ti2v":
        noisy[:, :, :1] = (vae.encode(image).latent_dist.mode() - mean) / std
        tokens = noisy.shape[3] * noisy.shape[4] // 4
        timestep = torch.cat([torch.zeros(1, tokens), timestep.expand(1, tokens)], dim=1)
        inputs = noisy
    else:
        clip = torch.cat([image, torch.zeros(1, 3, 4, *image.shape[-2:])], dim=2)
        mask = torch.zeros(1, 4, *noisy.shape[2:])
        mask[:, :, 0] = 1.0
        inputs = torch.cat([noisy, mask, (vae.encode(clip).latent_dist.mode() - mean) / std], dim=1)
        encoder = models.conditioner.image_encoder
        picture = encoder.rows(encoder.prepared(batch["images"][index : index + 1]))
    predicted = transformer(inputs, timestep, text, picture).sample[0].double()
    first = 1 if layout == "ti2v" else 0
    return (predicted - (noise - clean))[:, first:].square().mean()


@pytest.mark.parametrize("layout", ["i2v", "ti2v"])
def test_loss_equals_its_formula(tiny_wan_folder: Path, layout: str) -> None:
    models = models_of(tiny_wan_folder, layout)
    batch = batch_for(models) | {"z": None}
    with torch.no_grad():
        loss = FlowObjective(models.denoiser, models.conditioner).loss(**batch)
        each = [by_hand(tiny_wan_folder, layout, models, batch, index) for index in range(2)]
    torch.testing.assert_close(loss.double(), torch.stack(each).mean(), rtol=1e-6, atol=0.0)


def test_noise_levels_are_logit_normal(tiny_wan_folder: Path) -> None:
    size = models_of(tiny_wan_folder, "i2v").conditioner.size
    generator = torch.Generator().manual_seed(3)
    number = torch.randn((), generator=generator)
    draw = NoiseDraw.of(3, size)
    torch.testing.assert_close(draw.sigma, 1.0 / (1.0 + torch.exp(-number)))
    assert torch.equal(draw.noise, torch.randn(size.latent_shape, generator=generator))


@pytest.mark.parametrize("layout", ["i2v", "ti2v"])
def test_modulation_rows_are_text_after_the_padding(tiny_wan_folder: Path, layout: str) -> None:
    """With 510 rows of text and two of z, diffusers' own model, which expects 512 rows, gives the same bits."""
    models = models_of(tiny_wan_folder, layout, length=510)
    model = WanTransformer3DModel.from_pretrained(tiny_wan_folder / layout, subfolder="transformer").eval()
    batch, objective = batch_for(models, 1), FlowObjective(models.denoiser, models.conditioner)
    text = models.denoiser.text(batch["texts"], batch["z"])
    assert torch.equal(text[0, -2:], batch["z"])
    assert not text[0, 3:-2].any()
    with torch.no_grad():
        loss = objective.loss(**batch)
        models.denoiser.model = model
        assert torch.equal(objective.loss(**batch), loss)
        batch["z"] = batch["z"].flip(1)
        assert not torch.equal(objective.loss(**batch), loss)


@pytest.mark.parametrize("layout", ["i2v", "ti2v"])
@pytest.mark.parametrize("recomputes", [False, True])
def test_gradient_reaches_first_frames_z_and_every_parameter(
    tiny_wan_folder: Path, layout: str, recomputes: bool
) -> None:
    side = SIDE[layout]
    options = WanOptions(
        model=str(tiny_wan_folder / layout), num_frames=5, height=side, width=side, max_sequence_length=8,
        gradient_checkpointing=recomputes,
    )  # fmt: skip
    models = load_models(options, CPU)
    batch = batch_for(models)
    batch["images"].requires_grad_()
    batch["z"].requires_grad_()
    FlowObjective(models.denoiser, models.conditioner).loss(**batch).backward()
    for leaf in (batch["images"], batch["z"], *models.denoiser.model.parameters()):
        assert leaf.grad is not None
        assert leaf.grad.abs().max() > 0


def test_the_gradient_in_the_first_frame_is_the_sum_of_both_ways(
    tiny_wan_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wan 2.1 sees the first frame as latents and as tokens of CLIP."""
    models = models_of(tiny_wan_folder, "i2v", length=8)
    batch, objective = batch_for(models, 1), FlowObjective(models.denoiser, models.conditioner)
    leaf = batch["images"].requires_grad_()

    def gradient() -> Tensor:
        (found,) = torch.autograd.grad(objective.loss(**batch), leaf)
        return found

    both, ways = gradient(), []
    for owner, name in ((models.coder, "encoded"), (models.conditioner.image_encoder, "rows")):
        whole = getattr(owner, name)
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, lambda *arguments, whole=whole: whole(*arguments).detach())
            ways.append(gradient())
    assert all(way.abs().max() > 1e-3 * both.abs().max() for way in ways)
    torch.testing.assert_close(sum(ways), both, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("layout", ["i2v", "ti2v"])
def test_the_gradient_in_the_first_frame_equals_differences(tiny_wan_folder: Path, layout: str) -> None:
    models = models_of(tiny_wan_folder, layout, length=8)
    batch, objective = batch_for(models, 1), FlowObjective(models.denoiser, models.conditioner)
    image = batch["images"].clone().requires_grad_()
    objective.loss(**(batch | {"images": image})).backward()
    direction = image.grad.sign() * 0.001

    def value(step: Tensor) -> float:
        with torch.no_grad():
            return float(objective.loss(**(batch | {"images": batch["images"] + step})))

    slope = (value(direction) - value(-direction)) / 2.0
    assert slope == pytest.approx(float((image.grad * direction).sum()), rel=0.02)


def test_a_batch_of_unequal_parts_is_refused(tiny_wan_folder: Path) -> None:
    models = models_of(tiny_wan_folder, "i2v", length=8)
    objective, batch = FlowObjective(models.denoiser, models.conditioner), batch_for(models)
    for changes, named in (
        ({"seeds": [1]}, "batch: expected as many"),
        ({"images": torch.zeros(1, 3, 32, 32)}, "batch"),
        ({"z": torch.zeros(2, 31)}, r"z: expected \(rows >= 1, 32\)"),
        ({"texts": [torch.zeros(9, 32)] * 2}, "prompt rows: expected at most 8, got 9"),
        ({"images": torch.zeros(2, 32, 32, 3)}, "images: expected float"),
    ):
        with pytest.raises(InputError, match=named):
            objective.loss(**(batch | changes))
