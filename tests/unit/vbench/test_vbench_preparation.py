"""Inputs of the networks: sizes, the choice of frames, padding, and that each path is its own."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from mora_env_vbench.clip.tokenizer import tokenizer
from mora_env_vbench.preparation.frame_choice import dynamic_stride, middle_frames
from mora_env_vbench.preparation.imaging_input import imaging_input
from mora_env_vbench.preparation.network_input import clip_float, clip_pil, clip_uint8, dino_float
from mora_env_vbench.preparation.normalisation import CLIP, IMAGENET
from mora_env_vbench.preparation.padding import padded, padding_to, unpadded
from mora_env_vbench.weights.recipe import made_clip
from mora_runtime.errors import BadArgument
from torch import Tensor

SQUARES = (clip_float, clip_uint8, clip_pil)


@pytest.mark.parametrize(("height", "width", "expected"), [(100, 180, (224, 403)), (180, 100, (403, 224))])
def test_dino_sees_the_whole_frame_and_clip_its_middle(height: int, width: int, expected: tuple[int, int]) -> None:
    frames = made_clip(seed=1, frames=2, height=height // 4 * 4, width=width, cell=4)
    assert dino_float(frames).shape == (2, 3, *expected)
    assert all(path(frames).shape == (2, 3, 224, 224) for path in SQUARES)


@pytest.mark.parametrize("path", [dino_float, *SQUARES])
def test_a_frame_of_one_colour_stays_that_colour(path: Callable[[Tensor], Tensor]) -> None:
    colours = IMAGENET if path is dino_float else CLIP
    frames = torch.tensor([200, 100, 50], dtype=torch.uint8).expand(1, 90, 120, 3).contiguous()
    expected = colours.normalised(torch.tensor([200.0, 100.0, 50.0]).view(3, 1, 1))
    assert torch.allclose(path(frames), expected.expand(1, 3, 1, 1), atol=1e-4)


def test_only_the_float_path_leaves_the_range_of_bytes() -> None:
    frames = torch.zeros(1, 32, 32, 3, dtype=torch.uint8)
    frames[:, 8:24, 8:24] = 255
    for path, leaves in ((clip_float, True), (clip_uint8, False), (clip_pil, False)):
        values = path(frames)
        darkest = CLIP.normalised(torch.zeros(3, 1, 1)).min()
        assert bool(values.min() < darkest - 1e-3) == leaves


def test_only_pillow_smooths_what_it_makes_smaller() -> None:
    lines = ((torch.arange(896) % 3 == 0) * 255).to(torch.uint8)
    frames = lines.view(1, 896, 1, 1).expand(1, 896, 896, 3).contiguous()
    smooth, *sharp = (float(path(frames).std(dim=2).min()) for path in (clip_pil, clip_float, clip_uint8, dino_float))
    assert smooth < 0.3 < 1.0 < min(sharp)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [("longer", (389, 512)), ("shorter", (512, 672)), ("shorter_centercrop", (512, 512)), ("None", (560, 736))],
)
def test_large_frames_get_the_size_of_the_imaging_mode(mode: str, expected: tuple[int, int]) -> None:
    assert imaging_input(torch.zeros(1, 560, 736, 3, dtype=torch.uint8), mode).shape == (1, 3, *expected)  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", ["longer", "shorter", "shorter_centercrop", "None"])
def test_small_frames_keep_their_size_in_every_imaging_mode(mode: str) -> None:
    assert imaging_input(torch.zeros(1, 300, 512, 3, dtype=torch.uint8), mode).shape == (1, 3, 300, 512)  # type: ignore[arg-type]


def test_padding_repeats_the_border_and_can_be_taken_away() -> None:
    pictures = torch.rand(1, 3, 125, 163)
    assert padding_to(125, 163, 16) == (6, 7, 1, 2)
    larger = padded(pictures, 16)
    assert larger.shape == (1, 3, 128, 176)
    assert torch.equal(larger[..., 1, 0], pictures[..., 0, 0])
    assert torch.equal(unpadded(larger, 125, 163, 16), pictures)


def test_a_short_video_repeats_its_last_frame_and_a_long_one_gives_the_middles() -> None:
    assert middle_frames(3) == [0, 1, 2, 2, 2, 2, 2, 2]
    assert middle_frames(24) == [1, 4, 7, 10, 13, 16, 19, 22]


@pytest.mark.parametrize(("fps", "stride"), [(7.98, 1), (12, 2), (20, 2), (23.976, 3), (60, 8), (0.5, 1)])
def test_strides_are_whole_and_halves_are_rounded_to_even(fps: float, stride: int) -> None:
    assert dynamic_stride(fps) == stride


def test_a_text_that_is_too_long_is_cut_or_refused() -> None:
    text = "a very long prompt " * 40
    ids = tokenizer().ids(text, 32, cut=True)
    assert (len(ids), ids[0], ids[-1]) == (32, 49406, 49407)
    with pytest.raises(BadArgument, match="takes at most 77"):
        tokenizer().ids(text, 77, cut=False)


def test_texts_are_cleaned_before_they_are_split() -> None:
    same = ["a café & a dog", "  A  Café &amp;\na DOG ", "a cafÃ© &amp;amp; a dog"]
    assert len({tuple(tokenizer().ids(text, 77, cut=False)) for text in same}) == 1


def test_the_empty_text_is_start_and_end() -> None:
    assert tokenizer().ids("", 4, cut=False) == [49406, 49407, 0, 0]
