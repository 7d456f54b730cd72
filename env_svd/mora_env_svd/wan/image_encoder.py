"""CLIP's tokens of given pictures, which Wan 2.1 attends to next to the text."""

from __future__ import annotations

from typing import Any

from PIL import Image
from torch import Tensor
from torch.nn import functional as F


class ImageEncoder:
    """Pictures to CLIP's tokens, those of its last layer but one.

    Pictures of requests are prepared with the model's own image processor, which works on bytes. Pictures of a chain
    are prepared by the same steps in floating point, with a gradient: the difference is that Pillow rounds and clamps
    to bytes after each of its two resizing passes.

    Args:
        model: a frozen `CLIPVisionModel` of transformers.
        processor: the model's `CLIPImageProcessorPil`.
    """

    def __init__(self, model: Any, processor: Any) -> None:
        self._model = model
        self._processor = processor

    @property
    def num_rows(self) -> int:
        """Tokens of one picture: its patches and the class token."""
        config = self._model.config
        return int((config.image_size // config.patch_size) ** 2 + 1)

    def prepared_bytes(self, pictures: list[Tensor]) -> Tensor:
        """uint8 (H, W, 3) of any sizes -> what the model takes, float32 (N, 3, h, w)."""
        images = [Image.fromarray(picture.cpu().numpy()) for picture in pictures]
        found: Tensor = self._processor(images=images, return_tensors="pt").pixel_values
        return found

    def prepared(self, pictures: Tensor) -> Tensor:
        """As `prepared_bytes`, of float (N, 3, H, W) in [-1, 1]; differentiable."""
        processor = self._processor
        pixels = pictures * 0.5 + 0.5
        if processor.do_resize:
            size = _resized_to(processor.size, *pixels.shape[-2:])
            if size != tuple(pixels.shape[-2:]):
                pixels = F.interpolate(pixels, size=size, mode="bicubic", antialias=True, align_corners=False)
        if processor.do_center_crop:
            pixels = _center(pixels, processor.crop_size.height, processor.crop_size.width)
        mean, std = (
            pixels.new_tensor(values).view(1, 3, 1, 1) for values in (processor.image_mean, processor.image_std)
        )
        return (pixels - mean) / std

    def rows(self, prepared: Tensor) -> Tensor:
        """Tokens (N, rows, D) of prepared pictures; differentiable."""
        parameter = next(self._model.parameters())
        found = self._model(pixel_values=prepared.to(parameter.device, parameter.dtype), output_hidden_states=True)
        rows: Tensor = found.hidden_states[-2]
        return rows


def _resized_to(size: Any, height: int, width: int) -> tuple[int, int]:
    if not size.shortest_edge:
        return size.height, size.width
    short = min(height, width)
    return tuple(int(size.shortest_edge * side / short) for side in (height, width))  # type: ignore[return-value]


def _center(pixels: Tensor, height: int, width: int) -> Tensor:
    top, left = (pixels.shape[-2] - height) // 2, (pixels.shape[-1] - width) // 2
    if min(top, left) < 0:  # a picture smaller than the crop gets black borders, as in the processor
        below, right = height - pixels.shape[-2] + top, width - pixels.shape[-1] + left
        pixels = F.pad(pixels, [max(-left, 0), max(right, 0), max(-top, 0), max(below, 0)])
        top, left = max(top, 0), max(left, 0)
    return pixels[..., top : top + height, left : left + width]
