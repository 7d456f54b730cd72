"""Given pictures as the model's condition: their latents, the mask of given frames, CLIP's tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from diffusers.image_processor import VaeImageProcessor
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from mora_env_svd.clip_pipeline import BeforePiece, nothing_before
from mora_env_svd.errors import InputError
from mora_env_svd.wan.autoencoder import LatentCoder
from mora_env_svd.wan.image_encoder import ImageEncoder
from mora_env_svd.wan.layout import FRAMES_PER_CELL, WanSize


class GivenPictures(NamedTuple):
    """The first frame of a clip, or its first and its last."""

    pixels: Tensor  # (N, 3, H, W) in [-1, 1], of the clip's size
    prepared: Tensor | None  # the same for the image encoder, (N, 3, h, w)


class Condition(NamedTuple):
    """What the model sees of the given pictures.

    Args:
        latents: Wan 2.2 TI2V: those of the first frame, (B, C, 1, h, w). Else 4 channels of the mask, then the latents
            of a clip that is grey between the given frames, (B, 4 + C, f, h, w).
        picture: CLIP's tokens (B * N, rows, D), or None.
    """

    latents: Tensor
    picture: Tensor | None

    @classmethod
    def stacked(cls, parts: Sequence[Condition]) -> Condition:
        """Of a batch of samples."""
        pictures = [part.picture for part in parts if part.picture is not None]
        return cls(torch.cat([part.latents for part in parts]), torch.cat(pictures) if pictures else None)


class Conditioner:
    """Makes conditions of clips of one size.

    Args:
        image_encoder: None where the layout has none.
    """

    def __init__(self, size: WanSize, coder: LatentCoder, image_encoder: ImageEncoder | None) -> None:
        self.size = size
        self._coder = coder
        self.image_encoder = image_encoder
        # resizes, crops and scales bytes as the pipelines of diffusers do
        self._processor = VaeImageProcessor(vae_scale_factor=size.layout.pixels_per_cell)

    def of_bytes(self, pictures: Sequence[Tensor]) -> GivenPictures:
        """From uint8 (H, W, 3) of any size, with the steps and bits of diffusers' pipeline."""
        size, encoder = self.size, self.image_encoder
        images = [Image.fromarray(picture.cpu().numpy()) for picture in pictures]
        pixels = [self._processor.preprocess(image, height=size.height, width=size.width) for image in images]
        return GivenPictures(torch.cat(pixels), None if encoder is None else encoder.prepared_bytes(list(pictures)))

    def of_images(self, images: Tensor) -> list[GivenPictures]:
        """From first frames of a chain, float (B, 3, H, W) in [-1, 1] of any size; differentiable.

        Other sizes are resized to the clip's, with antialiasing and without keeping the aspect ratio.
        """
        if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
            raise InputError(f"images: expected float (B, 3, H, W), got {images.dtype} {tuple(images.shape)}")
        encoder, pixels = self.image_encoder, images
        if images.shape[-2:] != (self.size.height, self.size.width):
            side = (self.size.height, self.size.width)
            pixels = F.interpolate(images, size=side, mode="bilinear", antialias=True, align_corners=False)
        return [
            GivenPictures(own, None if encoder is None else encoder.prepared(image))
            for own, image in zip(pixels.split(1), images.split(1), strict=True)
        ]

    def condition(self, given: GivenPictures, before_piece: BeforePiece = nothing_before) -> Condition:
        """Of one clip; differentiable in the given pictures."""
        rows = None
        if self.image_encoder is not None and given.prepared is not None:
            before_piece()
            rows = self.image_encoder.rows(given.prepared)
        if self.size.layout.replaces_first:
            return Condition(self._coder.encoded(given.pixels[:1, :, None], before_piece), rows)
        latents = self._coder.encoded(self._shown_clip(given.pixels), before_piece)
        mask = self._mask(has_last=len(given.pixels) > 1)
        return Condition(torch.cat([mask.to(latents), latents], dim=1), rows)

    def _shown_clip(self, pixels: Tensor) -> Tensor:
        """(1, 3, F, H, W): the first frame, grey, and the last frame if it is given."""
        first, *last = pixels[:, :, None].split(1)
        grey = first.new_zeros(1, 3, self.size.num_frames - len(pixels), *pixels.shape[-2:])
        return torch.cat([first, grey, *last], dim=2)

    def _mask(self, *, has_last: bool) -> Tensor:
        """(1, 4, f, h, w): 1 where a frame is given; a latent frame's four channels are its four frames.

        The first latent frame has only one frame, which fills all four channels.
        """
        _, num_latent_frames, h, w = self.size.latent_shape
        frames = torch.zeros(self.size.num_frames)
        frames[0] = 1.0
        if has_last:
            frames[-1] = 1.0
        cells = torch.cat([frames[:1].expand(FRAMES_PER_CELL), frames[1:]]).view(num_latent_frames, FRAMES_PER_CELL)
        return cells.T[None, :, :, None, None].expand(1, -1, -1, h, w)
