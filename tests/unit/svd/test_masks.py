"""Which frames are given, what is refused, and pixels out."""

from __future__ import annotations

import pytest
import torch
from mora_env_svd.errors import InputError
from mora_env_svd.pixels import to_frames
from mora_env_svd.seine import masks


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        ("first1", [0]),
        ("first5", [0, 1, 2, 3, 4]),
        ("all", []),
        ("onelast1", [0, 4]),
        ("onelast2", [0, 1, 3, 4]),
        ("first0", []),
        ("onelast0", []),
    ],
)
def test_given_frames_are_zero(kind: str, given: list[int]) -> None:
    mask = masks.frame_mask(kind, 5)
    assert [index for index, value in enumerate(mask.tolist()) if value == 0.0] == given
    assert torch.equal(masks.latent_mask(kind, 5, 2, 3), mask[None, None, :, None, None].expand(1, 1, 5, 2, 3))


@pytest.mark.parametrize("kind", ["last1", "first", "onelast", "first-1", "first1.5", "", "onelast3", "first6"])
def test_a_mask_that_does_not_exist_or_fit_is_refused_by_name(kind: str) -> None:
    with pytest.raises(InputError, match=f"mask.*{kind}"):
        masks.frame_mask(kind, 5)


def test_frames_to_generate_are_grey_and_given_ones_show_their_images() -> None:
    white, black = torch.full((8, 8, 3), 255, dtype=torch.uint8), torch.zeros((8, 8, 3), dtype=torch.uint8)
    clip = masks.masked_clip("onelast2", [white, black], 6, 16, 24)
    assert clip.shape == (1, 6, 3, 16, 24)
    assert clip[0].mean(dim=(1, 2, 3)).tolist() == [1.0, 1.0, 0.0, 0.0, -1.0, -1.0]


def test_a_mask_takes_as_many_images_as_it_has_ends() -> None:
    image = torch.zeros((8, 8, 3), dtype=torch.uint8)
    for kind, images in (("first1", []), ("first1", [image] * 2), ("onelast1", [image]), ("all", [image])):
        with pytest.raises(InputError, match="images"):
            masks.masked_clip(kind, images, 6, 8, 8)
    with pytest.raises(InputError, match="uint8"):
        masks.masked_clip("first1", [image.float()], 6, 8, 8)


def test_pixels_are_rounded_and_the_decoded_clip_is_unchanged() -> None:
    values = torch.tensor([-2.0, -1.0, -1.0 + 0.9 / 127.5, -1.0 + 1.1 / 127.5, 1.0, 3.0])
    decoded = values.expand(1, 3, 1, 6).clone()
    frames = to_frames(decoded)
    assert frames.shape == (1, 1, 6, 3)
    assert frames[0, 0, :, 0].tolist() == [0, 0, 1, 1, 255, 255]
    assert torch.equal(decoded, values.expand(1, 3, 1, 6))
