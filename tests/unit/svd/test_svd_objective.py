"""The loss against EDM's formula by hand, and its gradient in the first frame through both of its paths."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from mora_env_svd.clip_size import ClipSize
from mora_env_svd.errors import InputError
from mora_env_svd.frame_coder import LATENT_SCALE, Posterior
from mora_env_svd.svd.conditioning import ClipNumbers, fit_pictures
from mora_env_svd.svd.models import SvdModels
from mora_env_svd.svd.objective import ClipObjective, NoiseDraw, Preconditioning
from mora_env_svd.svd.options import SvdOptions
from torch import Tensor

SIZE = ClipSize(3, 16, 24)
NUMBERS = ClipNumbers(fps=9, motion_bucket_id=50, noise_aug_strength=0.25)


@pytest.fixture(scope="module")
def models(tiny_svd: dict[str, Any]) -> SvdModels:
    return SvdModels.load(SvdOptions(**tiny_svd), torch.device("cpu"))


def objective(models: SvdModels) -> ClipObjective:
    return ClipObjective(models.unet, models.coder, models.encoder, SIZE, NUMBERS)


def images(number: int = 2) -> Tensor:
    return torch.rand(number, 3, 16, 24, generator=torch.Generator().manual_seed(1)) * 2.0 - 1.0


def target(seed: int) -> Posterior:
    generator = torch.Generator().manual_seed(seed)
    mean, std = (torch.randn(SIZE.frame_latents_shape, generator=generator) for _ in range(2))
    return Posterior(5.0 * mean, 0.1 * std.abs())


def draws(*sigmas: float) -> list[NoiseDraw]:
    return [NoiseDraw.of(seed, SIZE)._replace(sigma=torch.tensor(sigma)) for seed, sigma in enumerate(sigmas)]


@pytest.mark.parametrize("sigmas", [(0.02, 0.7), (2.0, 90.0)])
def test_the_loss_is_edms_formula(models: SvdModels, sigmas: tuple[float, float]) -> None:
    called: dict[str, Any] = {}

    def record(_: Any, arguments: Any, options: Any, output: Any) -> None:
        called.update(options, inputs=arguments[0], timesteps=arguments[1], rows=arguments[2], predicted=output[0])

    z = torch.randn(2, 32, generator=torch.Generator().manual_seed(7))
    drawn, targets, given = draws(*sigmas), [target(1), target(2)], images()
    handle = models.unet.register_forward_hook(record, with_kwargs=True)
    try:
        with torch.no_grad():
            loss = objective(models).loss(z, given, targets, drawn)
            embeddings = models.encoder.embeddings(given)
            noisy_pictures = given + 0.25 * torch.stack([draw.augmentation for draw in drawn])
            modes = torch.cat([models.coder.vae.encode(each).latent_dist.mode() for each in noisy_pictures.split(1)])
    finally:
        handle.remove()
    total = 0.0
    for index, (draw, sigma) in enumerate(zip(drawn, sigmas, strict=True)):
        mean, std = (part.double() for part in targets[index])
        clean = LATENT_SCALE * (mean + std * draw.target.double())
        noisy = clean + sigma * draw.noise.double()
        expected = torch.cat([noisy / math.sqrt(sigma**2 + 1), modes[index].double().expand(3, -1, -1, -1)], dim=1)
        assert torch.allclose(called["inputs"][index].double(), expected, rtol=1e-6, atol=1e-6)
        assert called["timesteps"][index].item() == pytest.approx(math.log(sigma) / 4, rel=1e-6)
        assert torch.equal(called["rows"][index], torch.cat([embeddings[index], z]))
        assert torch.equal(called["added_time_ids"][index], torch.tensor([8.0, 50.0, 0.25]))
        predicted = called["predicted"][index].double()
        denoised = noisy / (sigma**2 + 1) - sigma / math.sqrt(sigma**2 + 1) * predicted
        total += ((sigma**2 + 1) / sigma**2 * (denoised - clean) ** 2).mean().item() / len(sigmas)
    assert loss.item() == pytest.approx(total, rel=1e-6)


def test_a_perfect_prediction_has_no_loss() -> None:
    """The factors fit each other: denoising recovers clean latents from the velocity."""
    for sigma in (0.01, 1.0, 300.0):
        factors = Preconditioning(torch.tensor(sigma, dtype=torch.float64))
        clean, noise = 0.3, -1.2
        velocity = (noise - sigma * clean) / math.sqrt(sigma**2 + 1)
        denoised = factors.skip * (clean + sigma * noise) + factors.out * velocity
        assert denoised.item() == pytest.approx(clean, abs=1e-9)


def test_the_logarithm_of_sigma_is_normal() -> None:
    found = torch.stack([NoiseDraw.of(seed, ClipSize(1, 8, 8)).sigma for seed in range(4000)]).log()
    assert found.mean().item() == pytest.approx(0.7, abs=0.08)
    assert found.std().item() == pytest.approx(1.6, abs=0.06)


@pytest.mark.parametrize("path", ["latents", "embedding", "both"])
def test_the_gradient_in_the_first_frame_equals_differences(
    models: SvdModels, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    given, drawn, targets = images(1), draws(0.8), [target(1)]
    with torch.no_grad():
        embedding = models.encoder.embeddings(given)
        modes = models.coder.modes(given + 0.25 * drawn[0].augmentation)

    def loss(frames: Tensor) -> Tensor:
        return objective(models).loss(None, frames, targets, drawn)

    def value(frames: Tensor) -> float:
        with torch.no_grad():
            return float(loss(frames))

    def gradient() -> Tensor:
        leaf = given.clone().requires_grad_()
        (found,) = torch.autograd.grad(loss(leaf), leaf)
        return found

    whole = gradient()
    with monkeypatch.context() as patch:
        patch.setattr(models.encoder, "embeddings", lambda pictures: embedding)
        through_latents = gradient()
    if path == "latents":
        monkeypatch.setattr(models.encoder, "embeddings", lambda pictures: embedding)
    elif path == "embedding":
        monkeypatch.setattr(models.coder, "modes", lambda pictures: modes)
        assert torch.allclose(gradient() + through_latents, whole, rtol=1e-4, atol=1e-6 * whole.abs().max().item())
    found = gradient()
    assert found.abs().amax(dim=(0, 1)).gt(0).all(), "every pixel has an effect"
    direction = found.sign()
    slope = (found * direction).sum().item()

    def difference(step: float) -> float:
        return (value(given + step * direction) - value(given - step * direction)) / (2.0 * step)

    def extrapolated(step: float) -> float:
        """Without the third derivative, which is large here: a random autoencoder is far from linear."""
        return (4.0 * difference(step / 2.0) - difference(step)) / 3.0

    # a long step for the smooth path, a short one for the other
    assert min(abs(extrapolated(step) - slope) for step in (2e-2, 2e-3, 4e-4)) < 0.005 * slope


def test_a_batchs_loss_is_the_mean_of_its_samples(models: SvdModels) -> None:
    given, targets, drawn = images(), [target(1), target(2)], draws(0.5, 3.0)
    with torch.no_grad():
        both = objective(models).loss(None, given, targets, drawn)
        alone = [
            objective(models).loss(None, given[index : index + 1], [targets[index]], [drawn[index]])
            for index in range(2)
        ]
    assert both.item() == pytest.approx(torch.stack(alone).mean().item(), rel=1e-5)


def test_what_does_not_fit_is_refused(models: SvdModels) -> None:
    with pytest.raises(InputError, match="2 images, 1 targets, 1 seeds"):
        objective(models).loss(None, images(), [target(1)], draws(1.0))
    with pytest.raises(InputError, match=r"z: expected \(rows >= 1, 32\), got \(2, 31\)"):
        objective(models).loss(torch.zeros(2, 31), images(1), [target(1)], draws(1.0))
    with pytest.raises(InputError, match="images: expected float"):
        fit_pictures(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), SIZE)
    assert fit_pictures(torch.zeros(1, 3, 50, 60), SIZE).shape == (1, 3, 16, 24)
