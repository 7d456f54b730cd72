"""How many denoising steps run over a given picture. Needs no torch, because the check of options uses it."""

from __future__ import annotations


def skipped_steps(num_steps: int, strength: float) -> int:
    """Number of denoising steps skipped with a picture: none at strength 1; at least one always runs."""
    return min(int(num_steps - min(num_steps * strength, num_steps)), num_steps - 1)


def steps_over_picture(num_steps: int, strength: float) -> int:
    """Number of denoising steps that run over a picture by the rule of diffusers' UNet pipelines; at least one.

    It rounds down the number of steps that run, where `skipped_steps` rounds down the number of those that do not.
    """
    return max(1, min(int(num_steps * strength), num_steps))
