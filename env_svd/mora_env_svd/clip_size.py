"""Frames, height and width of a clip whose autoencoder makes one cell of 8x8 pixels, and four channels of it."""

from __future__ import annotations

from dataclasses import dataclass

from mora_env_svd.errors import InputError

PIXELS_PER_CELL = 8
LATENT_CHANNELS = 4


@dataclass(frozen=True)
class ClipSize:
    """Frames, height and width in pixels.

    Raises:
        InputError: a side is no multiple of 8, or there is no frame.
    """

    frames: int
    height: int
    width: int

    def __post_init__(self) -> None:
        if self.frames < 1:
            raise InputError(f"num_frames: expected at least 1, got {self.frames}")
        for name, side in (("height", self.height), ("width", self.width)):
            if side < PIXELS_PER_CELL or side % PIXELS_PER_CELL:
                nearest = max(round(side / PIXELS_PER_CELL), 1) * PIXELS_PER_CELL
                raise InputError(f"{name}: expected a multiple of {PIXELS_PER_CELL}, got {side}; {nearest} is nearest")

    @property
    def cells(self) -> tuple[int, int]:
        """Height and width of the latents."""
        return self.height // PIXELS_PER_CELL, self.width // PIXELS_PER_CELL

    @property
    def latent_shape(self) -> tuple[int, int, int, int]:
        """Shape (C, F, h, w) of one clip's latents, channels first."""
        return (LATENT_CHANNELS, self.frames, *self.cells)

    @property
    def frame_latents_shape(self) -> tuple[int, int, int, int]:
        """Shape (F, C, h, w) of one clip's latents, frames first."""
        return (self.frames, LATENT_CHANNELS, *self.cells)

    @property
    def clip_shape(self) -> tuple[int, int, int, int]:
        """Shape (F, H, W, 3) of one clip's bytes."""
        return (self.frames, self.height, self.width, 3)
