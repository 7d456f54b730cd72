"""The kept timesteps, and sampling with a model that knows the answer."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from mora_env_svd.errors import InputError
from mora_env_svd.seine.diffusion import SpacedDiffusion, alphas_cumprod, guide, sample_latents
from torch import Tensor, nn

SHAPE = (1, 4, 3, 2, 2)


class Oracle(nn.Module):
    """Predicts the noise that leads from any latents to one clip; remembers what it was called with."""

    def __init__(self, clean: Tensor) -> None:
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(()))
        self.clean = clean
        self.timesteps: list[int] = []
        self.conditions: list[Tensor] = []

    def forward(self, sample: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
        assert torch.equal(sample[0], sample[1]), "both halves of guidance see the same latents"
        self.timesteps.append(int(timestep[0]))
        self.conditions.append(sample[:1, 4:])
        abar = alphas_cumprod()[timestep[0]].float()
        return (sample[:, :4] - abar.sqrt() * self.clean) / (1.0 - abar).sqrt() + self.anchor


def sampled(method: Any, num_steps: int = 10, **more: Any) -> tuple[Tensor, Oracle, dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    clean, noise, masked = (torch.randn(SHAPE, generator=generator) for _ in range(3))
    inputs = {"mask": torch.ones(1, 1, 3, 2, 2), "masked_latents": masked, "text": torch.zeros(2, 5, 8)}
    model, process = Oracle(clean), SpacedDiffusion.from_config(num_steps)
    return sample_latents(model, process, noise, method=method, **inputs, **more), model, inputs


@pytest.mark.parametrize("num_steps", [2, 4, 35, 61, 250, 1000])
def test_kept_timesteps_descend_from_999_to_0(num_steps: int) -> None:
    timesteps = SpacedDiffusion.from_config(num_steps).timesteps
    assert timesteps.dtype == torch.int64
    assert (timesteps[0], timesteps[-1], len(timesteps)) == (999, 0, num_steps)
    assert bool((timesteps.diff() < 0).all())


def test_a_running_sum_gives_other_timesteps_than_a_product() -> None:
    kept = SpacedDiffusion.from_config(35).timesteps.tolist()[::-1]
    assert kept != [round(k * 999 / 34) for k in range(35)]


@pytest.mark.parametrize("num_steps", [0, 1, 1001])
def test_a_number_of_steps_that_cannot_be_is_refused(num_steps: int) -> None:
    with pytest.raises(InputError, match=f"num_steps: expected 2 to 1000, got {num_steps}"):
        SpacedDiffusion.from_config(num_steps)


@pytest.mark.parametrize("method", ["ddim", "ddpm"])
def test_sampling_ends_at_the_clip_that_a_perfect_model_predicts(method: str) -> None:
    latents, model, inputs = sampled(method, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(latents, model.clean, rtol=0.0, atol=1e-3)
    assert model.timesteps == [999, 888, 777, 666, 555, 444, 333, 222, 111, 0]
    expected = torch.cat([inputs["mask"], inputs["masked_latents"]], dim=1)
    assert all(torch.equal(condition, expected) for condition in model.conditions)


def test_a_generator_decides_the_noise_of_the_steps() -> None:
    first, again, other = (
        sampled("ddpm", 3, generator=torch.Generator().manual_seed(seed), on_step=None)[0] for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    steps: list[Tensor] = []
    sampled("ddpm", 3, generator=torch.Generator().manual_seed(2), on_step=lambda _, x: steps.append(x))
    assert torch.equal(steps[-1], other)
    assert not torch.equal(steps[0], steps[1])


def test_only_the_last_steps_have_a_gradient() -> None:
    latents, model, _ = sampled("ddim", 4, gradient_steps=1)
    latents.sum().backward()
    last = model.anchor.grad
    assert last is not None
    expected = -((1.0 / alphas_cumprod()[0] - 1.0).sqrt()) * latents.numel()
    torch.testing.assert_close(last.double(), expected, rtol=1e-4, atol=0.0)


def test_steps_are_float32_and_need_noise_except_the_last() -> None:
    process = SpacedDiffusion.from_config(4)
    x = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0)).half()
    assert process.ddpm_step(x, x, 999, x).dtype == torch.float32
    assert process.ddpm_step(x, x, 0, None).dtype == torch.float32
    assert process.ddim_step(x, x, 999).dtype == torch.float32
    for refused in (lambda: process.ddpm_step(x, x, 333, None), lambda: process.ddim_step(x, x, 333, 0.5)):
        with pytest.raises(InputError, match="expected noise"):
            refused()
    with pytest.raises(InputError, match="kept timesteps, got 4"):
        process.ddim_step(x, x, 4)


def test_guidance_takes_the_conditional_half_first() -> None:
    output = torch.tensor([3.0, 1.0])[:, None]
    assert guide(output, 8.0).tolist() == [[17.0]]
    assert guide(output, 1.0).tolist() == [[3.0]]


def test_shapes_that_do_not_fit_are_refused_by_name() -> None:
    model, process = Oracle(torch.zeros(SHAPE)), SpacedDiffusion.from_config(4)
    good: dict[str, Any] = {
        "noise": torch.zeros(SHAPE), "mask": torch.ones(1, 1, 3, 2, 2), "masked_latents": torch.zeros(SHAPE),
        "text": torch.zeros(2, 5, 8),
    }  # fmt: skip
    for changes, named in (
        ({"mask": torch.ones(1, 3, 2, 2)}, "mask: expected"),
        ({"masked_latents": torch.zeros(1, 4, 2, 2, 2)}, "masked_latents: expected"),
        ({"text": torch.zeros(1, 5, 8)}, "text"),
        ({"method": "pndm"}, "method: expected ddpm or ddim, got 'pndm'"),
        ({"step_noise": torch.zeros(3, *SHAPE)}, "step_noise: expected"),
    ):
        with pytest.raises(InputError, match=named):
            sample_latents(model, process, **(good | changes))
