"""Which frames are given, and clips that do not fit."""

from __future__ import annotations

import pytest
import torch
from mora_env_opensora.conditioning import ClipSize, fit_image, frame_mask, latent_mask, place_frames
from mora_env_opensora.models import InputError


@pytest.mark.parametrize("frames", [0, 2, 4, 8, 92, -3])
def test_frame_counts_other_than_4k_plus_1_are_refused(frames: int) -> None:
    with pytest.raises(InputError, match=r"num_frames: expected 4k \+ 1"):
        ClipSize(frames, 64, 64)


@pytest.mark.parametrize(("height", "width", "named"), [(60, 64, "height"), (64, 472, "width"), (0, 64, "height")])
def test_sides_not_divisible_by_16_are_refused(height: int, width: int, named: str) -> None:
    with pytest.raises(InputError, match=f"{named}: expected a multiple of 16"):
        ClipSize(9, height, width)


def test_published_clip_sizes_fit() -> None:
    assert ClipSize(93, 480, 640).latent_shape == (4, 24, 60, 80)
    assert ClipSize(29, 720, 1280).latent_shape == (4, 8, 90, 160)
    assert ClipSize(1, 480, 640).latent_shape == (4, 1, 60, 80)


def test_the_mask_interleaves_time_and_channel_as_in_training() -> None:
    mask = latent_mask(frame_mask(9, [0, -1])[None], 1, 1)[0, :, :, 0, 0]
    assert mask.tolist() == [[0, 0, 0], [0, 1, 1], [1, 1, 1], [1, 1, 0]]


def test_given_frames_outside_the_clip_are_refused() -> None:
    with pytest.raises(InputError, match="given frame"):
        frame_mask(9, [9])


def test_images_and_indices_must_pair() -> None:
    with pytest.raises(InputError, match="one image for each of 2 indices, got 1"):
        place_frames([torch.zeros(1, 3, 16, 16)], [0, -1], 9)


def test_a_fitted_image_covers_the_clip_and_keeps_its_centre() -> None:
    image = torch.zeros(1, 3, 20, 60)
    image[..., 30:] = 1.0
    fitted = fit_image(image, 40, 40)
    assert fitted.shape == (1, 3, 40, 40)
    assert float(fitted[..., :15].max()) == 0.0
    assert float(fitted[..., 25:].min()) == 1.0


def test_fitting_is_differentiable_and_does_not_change_an_image_of_the_right_size() -> None:
    image = torch.rand(2, 3, 30, 50, requires_grad=True)
    fit_image(image, 32, 32).sum().backward()
    assert image.grad.abs().sum() > 0
    right = torch.rand(1, 3, 32, 32)
    assert fit_image(right, 32, 32) is right


@pytest.mark.parametrize("image", [torch.zeros(3, 16, 16), torch.zeros(1, 1, 16, 16), torch.zeros(1, 3, 8, 8).byte()])
def test_images_of_another_form_are_refused(image: torch.Tensor) -> None:
    with pytest.raises(InputError, match="images: expected float"):
        fit_image(image, 16, 16)
