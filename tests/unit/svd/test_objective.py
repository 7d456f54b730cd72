"""The training loss equals its formula, and its gradient reaches the first frame."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL
from mora_env_svd.clip_size import ClipSize
from mora_env_svd.errors import InputError
from mora_env_svd.frame_coder import LATENT_SCALE, Posterior
from mora_env_svd.seine.conditioning import MaskedFrameCoder
from mora_env_svd.seine.diffusion import alphas_cumprod
from mora_env_svd.seine.masks import frame_mask
from mora_env_svd.seine.models import SeineUNet
from mora_env_svd.seine.objective import NoiseDraw, TransitionObjective
from mora_env_svd.seine.weights.weights_folder import load_unet
from torch import Tensor

SIZE = ClipSize(6, 32, 32)


@pytest.fixture(scope="module")
def parts(tiny: dict[str, Any]) -> tuple[SeineUNet, AutoencoderKL]:
    vae = AutoencoderKL.from_pretrained(tiny["base"], subfolder="vae").eval().requires_grad_(False)
    return load_unet(tiny["model"]), vae


@pytest.fixture
def batch() -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    shape = (6, 4, 4, 4)
    return {
        "z": torch.randn(2, 32, generator=generator),
        "texts": [torch.randn(77, 32, generator=generator) for _ in range(2)],
        "images": torch.rand(2, 3, 32, 32, generator=generator) * 2.0 - 1.0,
        "targets": [
            Posterior(torch.randn(shape, generator=generator), torch.rand(shape, generator=generator)) for _ in range(2)
        ],
        "seeds": [5, 1_000_003],
    }


def by_hand(model: SeineUNet, vae: AutoencoderKL, batch: dict[str, Any], index: int, masks: list[str]) -> Tensor:
    """One sample's loss, its frames encoded together, from the description in words."""
    draw = NoiseDraw.of(batch["seeds"][index], masks, SIZE)
    target, mask = batch["targets"][index], frame_mask(draw.mask, 6)
    first, grey = (
        vae.encode(picture).latent_dist for picture in (batch["images"][index : index + 1], torch.zeros(1, 3, 32, 32))
    )
    means, stds = [], []
    for frame in range(6):
        if frame == 0:
            means.append(first.mean[0])
            stds.append(first.std[0])
        elif mask[frame] == 0:
            means.append(target.mean[frame])
            stds.append(target.std[frame])
        else:
            means.append(grey.mean[0])
            stds.append(grey.std[0])
    masked = LATENT_SCALE * (torch.stack(means) + torch.stack(stds) * draw.masked)
    clean = LATENT_SCALE * (target.mean + target.std * draw.target)
    abar = alphas_cumprod()[draw.timestep].float()
    noisy = abar.sqrt() * clean + (1 - abar).sqrt() * draw.noise
    channels = torch.cat([noisy, mask[:, None, None, None].expand(6, 1, 4, 4), masked], dim=1)
    text = torch.cat([batch["texts"][index], batch["z"]])[None]
    predicted = model(channels.transpose(0, 1)[None], torch.tensor([draw.timestep]), text)
    return (predicted[0].transpose(0, 1) - draw.noise).square().mean()


@pytest.mark.parametrize("masks", [["first1"], ["onelast1"], ["first3", "onelast2", "first1"]])
def test_loss_equals_its_formula(
    parts: tuple[SeineUNet, AutoencoderKL], batch: dict[str, Any], masks: list[str]
) -> None:
    model, vae = parts
    objective = TransitionObjective(model, MaskedFrameCoder(vae), SIZE, masks)
    with torch.no_grad():
        loss = objective.loss(**batch)
        expected = torch.stack([by_hand(model, vae, batch, index, masks) for index in range(2)]).mean()
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=0.0)


@pytest.mark.parametrize("recomputes", [False, True])
def test_gradient_reaches_first_frames_z_and_every_parameter(
    parts: tuple[SeineUNet, AutoencoderKL], batch: dict[str, Any], recomputes: bool
) -> None:
    model, vae = parts
    coder = MaskedFrameCoder(vae, recomputes=recomputes)
    batch["images"].requires_grad_()
    batch["z"].requires_grad_()
    model.zero_grad()
    TransitionObjective(model, coder, SIZE, ["onelast1"]).loss(**batch).backward()
    for leaf in (batch["images"], batch["z"], *model.parameters()):
        assert leaf.grad is not None
        assert leaf.grad.abs().max() > 0
    assert all(parameter.grad is None for parameter in vae.parameters())


def test_a_seed_draws_the_same_whatever_the_number_of_masks() -> None:
    one, same = (NoiseDraw.of(3, masks, SIZE) for masks in (["first1"], ["first2"]))
    assert (one.timestep, torch.equal(one.noise, same.noise)) == (same.timestep, True)
    drawn = {NoiseDraw.of(seed, ["first1", "onelast1"], SIZE).mask for seed in range(20)}
    assert drawn == {"first1", "onelast1"}


def test_a_batch_of_unequal_parts_is_refused(parts: tuple[SeineUNet, AutoencoderKL], batch: dict[str, Any]) -> None:
    objective = TransitionObjective(parts[0], MaskedFrameCoder(parts[1]), SIZE, ["first1"])
    for changes, named in (
        ({"seeds": [1]}, "batch: expected as many"),
        ({"images": torch.zeros(1, 3, 32, 32)}, "batch"),
        ({"z": torch.zeros(2, 31)}, r"z: expected \(rows >= 1, 32\)"),
        ({"texts": [torch.zeros(77, 32), torch.zeros(76, 32)]}, "one length"),
        ({"images": torch.zeros(2, 32, 32, 3)}, "images: expected float"),
    ):
        with pytest.raises(InputError, match=named):
            objective.loss(**(batch | changes))
