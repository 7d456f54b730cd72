"""How many denoising steps run over a given picture. Needs no torch, because the check of options uses it."""

from __future__ import annotations


def skipped_steps(num_steps: int, strength: float) -> int:
    """Number of denoising steps skipped with a picture: none at strength 1; at least one always runs."""
    return min(int(num_steps - min(num_steps * strength, num_steps)), num_steps - 1)
