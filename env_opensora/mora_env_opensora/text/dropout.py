"""Drops texts in training, so that guidance has an unconditional branch. Needs only the standard library and torch."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from mora_env_opensora.models import InputError

DEFAULT_VIDEO_TEXT = "The video showcases a scene with coherent and clear visuals."
DEFAULT_IMAGE_TEXT = "The image showcases a scene with coherent and clear visuals."


@dataclass(frozen=True)
class TextDropout:
    """With `probability`, a text becomes a default sentence (a share `default_text_ratio` of the time) or empty.

    Text-to-video trains with (0.1, 0.0), image-to-video with (0.1, 0.5).
    """

    probability: float = 0.1
    default_text_ratio: float = 0.5

    def __post_init__(self) -> None:
        for name in ("probability", "default_text_ratio"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise InputError(f"text dropout {name}: expected 0 to 1, got {getattr(self, name)}")

    def replacement(self, frames: int, generator: torch.Generator) -> str | None:
        """The text that replaces the caption of a clip of `frames` in training, or None to keep the caption.

        It always draws two numbers, so that a sample's later numbers do not depend on the outcome.
        """
        dropped, defaulted = torch.rand(2, generator=generator).tolist()
        if dropped >= self.probability:
            return None
        if defaulted >= self.default_text_ratio:
            return ""
        return DEFAULT_VIDEO_TEXT if frames > 1 else DEFAULT_IMAGE_TEXT

    @property
    def replacements(self) -> tuple[str, ...]:
        """All texts that `replacement` may return for a video."""
        return () if self.probability == 0 else ("", DEFAULT_VIDEO_TEXT)
