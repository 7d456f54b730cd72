"""What SDXL is told about the size and the crop of a picture. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass

Pair = tuple[int, int]


@dataclass(frozen=True)
class SizeCondition:
    """Sizes are (height, width), crops (top, left); None takes the value that diffusers gives.

    The aesthetic scores are for a refiner.
    """

    original_size: Pair | None = None
    crops_coords_top_left: Pair = (0, 0)
    target_size: Pair | None = None
    negative_original_size: Pair | None = None
    negative_crops_coords_top_left: Pair = (0, 0)
    negative_target_size: Pair | None = None
    aesthetic_score: float = 6.0
    negative_aesthetic_score: float = 2.5

    def from_noise(self, height: int, width: int) -> tuple[list[float], list[float]]:
        """Numbers for the prompt's half of guidance and for the other one, as diffusers' text to image has them."""
        prompt = self._numbers(self.original_size, self.crops_coords_top_left, self.target_size, (height, width))
        if self.negative_original_size is None or self.negative_target_size is None:
            return prompt, prompt
        crop = self.negative_crops_coords_top_left
        return prompt, [*self.negative_original_size, *crop, *self.negative_target_size]

    def over_picture(self, height: int, width: int, *, scores: bool) -> tuple[list[float], list[float]]:
        """As `from_noise`, as diffusers' image to image has them.

        Args:
            scores: of a model that takes an aesthetic score in place of the target size.
        """
        size, crop = (height, width), self.crops_coords_top_left
        original = self.negative_original_size or self.original_size
        if scores:
            first, second = self.original_size or size, original or size
            negative_crop = self.negative_crops_coords_top_left
            return [*first, *crop, self.aesthetic_score], [*second, *negative_crop, self.negative_aesthetic_score]
        target = self.negative_target_size or self.target_size
        prompt = self._numbers(self.original_size, crop, self.target_size, size)
        return prompt, self._numbers(original, crop, target, size)

    @staticmethod
    def _numbers(original: Pair | None, crop: Pair, target: Pair | None, size: Pair) -> list[float]:
        return [*(original or size), *crop, *(target or size)]
