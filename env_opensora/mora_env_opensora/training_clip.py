"""How many frames of a training clip are kept. Standard library alone."""

from __future__ import annotations

_LEAST = 29


def frames_kept(available: int) -> int | None:
    """The largest 4k + 1 frames that make a number of latent frames divisible by 4 (29, 45, 61, 77, 93, ...).

    None where fewer than 29 are available: upstream rejects such clips.
    """
    if available < _LEAST:
        return None
    latent_frames = ((available - 1) // 4 + 1) // 4 * 4
    return 4 * (latent_frames - 1) + 1
