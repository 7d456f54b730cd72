"""SEINE's diffusion: 1000 linear steps, of which sampling keeps some; one step, guidance, and the whole loop.

Coefficients are computed in float64, rounded to float32 and applied in float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, Self

import torch
from torch import Tensor, nn

from mora_env_svd.clip_pipeline import OnStep
from mora_env_svd.errors import InputError

TRAIN_STEPS = 1000
GUIDANCE_SCALE = 8.0
Method = Literal["ddpm", "ddim"]


@lru_cache(1)
def alphas_cumprod() -> Tensor:
    """float64 (1000,) of the base process: betas from 1e-4 to 0.02, unlike Stable Diffusion's."""
    betas = torch.linspace(1e-4, 0.02, TRAIN_STEPS, dtype=torch.float64)
    return torch.cumprod(1.0 - betas, dim=0)


def kept_timesteps(num_steps: int) -> list[int]:
    """Ascending timesteps from 0 to 999.

    The position is a running sum of floats and is rounded half to even. Multiplying instead gives other timesteps for
    about 300 numbers of steps.
    """
    if not 2 <= num_steps <= TRAIN_STEPS:
        raise InputError(f"num_steps: expected 2 to {TRAIN_STEPS}, got {num_steps}")
    stride, position, kept = (TRAIN_STEPS - 1) / (num_steps - 1), 0.0, []
    for _ in range(num_steps):
        kept.append(round(position))
        position += stride
    return kept


@dataclass(frozen=True)
class StepTable:
    """Coefficients of the kept steps, float64 and ascending."""

    alphas_cumprod: Tensor
    alphas_cumprod_prev: Tensor
    betas: Tensor
    log_variance: Tensor
    posterior_mean_coef1: Tensor  # of the predicted clean latents
    posterior_mean_coef2: Tensor  # of the noisy latents

    @classmethod
    def of(cls, timesteps: list[int]) -> Self:
        abar = alphas_cumprod()[timesteps]
        abar_prev = torch.cat([torch.ones(1, dtype=torch.float64), abar[:-1]])
        betas = 1.0 - abar / abar_prev
        posterior = betas * (1.0 - abar_prev) / (1.0 - abar)
        return cls(
            alphas_cumprod=abar,
            alphas_cumprod_prev=abar_prev,
            betas=betas,
            log_variance=torch.log(torch.cat([posterior[1:2], betas[1:]])),
            posterior_mean_coef1=betas * abar_prev.sqrt() / (1.0 - abar),
            posterior_mean_coef2=(1.0 - abar_prev) * (1.0 - betas).sqrt() / (1.0 - abar),
        )


class SpacedDiffusion:
    """The kept steps of the process, and one step of sampling by DDPM or DDIM. Steps return float32."""

    def __init__(self, num_steps: int) -> None:
        ascending = kept_timesteps(num_steps)
        self.table = StepTable.of(ascending)
        self.timesteps = torch.tensor(ascending[::-1])
        self._index = {timestep: index for index, timestep in enumerate(ascending)}

    @classmethod
    def from_config(cls, num_steps: int) -> Self:
        """Make the process with this number of steps, 2 to 1000.

        Raises:
            InputError: another number.
        """
        return cls(num_steps)

    def predicted_clean(self, x: Tensor, eps: Tensor, t: int) -> Tensor:
        """The clean latents that the predicted noise implies, float32, not clipped."""
        inverse = 1.0 / self.table.alphas_cumprod[self._at(t)]
        return _rounded(inverse.sqrt()) * x.float() - _rounded((inverse - 1.0).sqrt()) * eps.float()

    def ddpm_step(self, x: Tensor, eps: Tensor, t: int, noise: Tensor | None) -> Tensor:
        """The latents at the next lower kept timestep.

        Args:
            t: one of `timesteps`.
            noise: standard normal, like x; the lowest timestep needs none.
        """
        index, table = self._at(t), self.table
        clean = self.predicted_clean(x, eps, t)
        mean = _rounded(table.posterior_mean_coef1[index]) * clean
        mean = mean + _rounded(table.posterior_mean_coef2[index]) * x.float()
        if index == 0:
            return mean
        std = torch.exp(0.5 * table.log_variance[index].float()).item()
        return mean + std * _given(noise, "ddpm_step").float()

    def ddim_step(self, x: Tensor, eps: Tensor, t: int, eta: float = 0.0, noise: Tensor | None = None) -> Tensor:
        """The latents at the next lower kept timestep; `noise` is needed for eta > 0, except at the lowest one."""
        index, table = self._at(t), self.table
        abar, abar_prev = table.alphas_cumprod[index], table.alphas_cumprod_prev[index]
        clean = self.predicted_clean(x, eps, t)
        sigma = eta * ((1.0 - abar_prev) / (1.0 - abar)).sqrt() * (1.0 - abar / abar_prev).sqrt()
        direction = _rounded((1.0 - abar_prev - sigma**2).clamp(min=0.0).sqrt())
        result = _rounded(abar_prev.sqrt()) * clean + direction * eps.float()
        if eta == 0.0 or index == 0:
            return result
        return result + _rounded(sigma) * _given(noise, "ddim_step").float()

    def _at(self, t: int) -> int:
        index = self._index.get(int(t))
        if index is None:
            raise InputError(f"t: expected one of the {len(self._index)} kept timesteps, got {t}")
        return index


def guide(model_output: Tensor, scale: float) -> Tensor:
    """Predictions (2B, ...) with text, then with the negative text -> guided (B, ...)."""
    conditional, unconditional = model_output.chunk(2)
    return unconditional + scale * (conditional - unconditional)


def sample_latents(
    model: nn.Module,
    process: SpacedDiffusion,
    noise: Tensor,
    mask: Tensor,
    masked_latents: Tensor,
    text: Tensor,
    *,
    guidance_scale: float = GUIDANCE_SCALE,
    method: Method = "ddpm",
    step_noise: Tensor | None = None,
    generator: torch.Generator | None = None,
    gradient_steps: int | None = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """Denoise one clip to scaled latents (1, 4, F, h, w), float32: not divided by the autoencoder's scale.

    Differentiable in masked latents, text and model. The given frames' latents are a condition only: they are never
    put into the noisy latents.

    Args:
        noise: standard normal (1, 4, F, h, w).
        mask: (1, 1, F, h, w), 1 = to be generated.
        masked_latents: (1, 4, F, h, w) of the given frames between grey ones.
        text: (2, L, D), prompt and negative prompt.
        step_noise: (steps, 1, 4, F, h, w) in the order of sampling. None: drawn on the CPU, of `generator`.
        gradient_steps: number of last steps whose model call has a gradient; None = all.
        on_step: called after every step.

    Raises:
        InputError: the method is unknown, or shapes do not fit.
    """
    num_steps = len(process.timesteps)
    _check_sampling(noise, mask, masked_latents, text, method, step_noise, num_steps)
    parameter = next(model.parameters())
    device, dtype = parameter.device, parameter.dtype
    condition = torch.cat([mask.to(device, dtype), masked_latents.to(device, dtype)], dim=1)
    text = text.to(device, dtype)
    latents = noise.to(device).float()
    first_with_gradient = 0 if gradient_steps is None else num_steps - gradient_steps
    for number, t in enumerate(process.timesteps.tolist()):
        with torch.set_grad_enabled(torch.is_grad_enabled() and number >= first_with_gradient):
            inputs = torch.cat([latents.to(dtype), condition], dim=1).expand(2, -1, -1, -1, -1)
            predicted = guide(model(inputs, torch.full((2,), t, device=device), text).float(), guidance_scale)
        if method == "ddim":
            latents = process.ddim_step(latents, predicted, t)
        else:
            drawn = torch.randn(noise.shape, generator=generator) if step_noise is None else step_noise[number]
            latents = process.ddpm_step(latents, predicted, t, drawn.to(device))
        if on_step is not None:
            on_step(number, latents)
    return latents


def _check_sampling(
    noise: Tensor,
    mask: Tensor,
    masked_latents: Tensor,
    text: Tensor,
    method: str,
    step_noise: Tensor | None,
    num_steps: int,
) -> None:
    if method not in ("ddpm", "ddim"):
        raise InputError(f"method: expected ddpm or ddim, got {method!r}")
    shape = tuple(noise.shape)
    one_channel = (*shape[:1], 1, *shape[2:])
    expected = {"masked_latents": (masked_latents, shape), "mask": (mask, one_channel)}
    if step_noise is not None:
        expected["step_noise"] = (step_noise, (num_steps, *shape))
    for name, (tensor, wanted) in expected.items():
        if tuple(tensor.shape) != wanted:
            raise InputError(f"{name}: expected {wanted} for noise of {shape}, got {tuple(tensor.shape)}")
    if noise.ndim != 5 or shape[0] != 1 or text.ndim != 3 or text.shape[0] != 2:
        raise InputError(
            f"expected the noise (1, 4, F, h, w) of one clip and text (2, L, D), got {shape} and {tuple(text.shape)}"
        )


def _rounded(coefficient: Tensor) -> float:
    return coefficient.float().item()


def _given(noise: Tensor | None, owner: str) -> Tensor:
    if noise is None:
        raise InputError(f"{owner}: expected noise, which only the lowest timestep does not need")
    return noise
