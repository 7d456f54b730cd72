"""AMT's agent: motion smoothness, and the videos that have none."""

from __future__ import annotations

from math import nan

import pytest
import torch
from mora_env_vbench.amt.warp import warped
from mora_runtime.errors import BadArgument
from tiny_agents import clip, measured, tiny_agent
from torch import Tensor

MOTION = "motion_smoothness"


def test_every_second_frame_between_two_others_is_compared() -> None:
    found = measured("amt", MOTION, clip(7))
    assert found["differences"].shape == (3,)
    assert found["score"] == pytest.approx((255 - found["differences"].double().mean().item()) / 255, rel=1e-7)


def test_the_last_frame_of_an_even_number_has_no_part() -> None:
    frames = clip(6)
    changed = frames.clone()
    changed[5] = 0
    assert measured("amt", MOTION, changed)["score"] == measured("amt", MOTION, frames)["score"]
    changed[3] = 0
    assert measured("amt", MOTION, changed)["score"] != measured("amt", MOTION, frames)["score"]


def test_pairs_have_the_same_values_whatever_the_number_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = clip(9, 128, 160)
    together = measured("amt", MOTION, frames)["differences"]
    monkeypatch.setattr("mora_env_vbench.amt.agent.num_at_once", lambda wanted, num_pixels, device: 3)
    torch.testing.assert_close(measured("amt", MOTION, frames)["differences"], together, atol=1e-3, rtol=0.0)


def test_frames_of_any_size_are_compared_without_their_padding() -> None:
    frames = clip(3, 136, 136)[:, :131, :133]
    made = tiny_agent("amt")._middles(frames[::2])
    assert made.shape == (1, 131, 133, 3)
    expected = (made[0].int() - frames[1].int()).abs().double().mean().item()
    assert measured("amt", MOTION, frames)["differences"].tolist() == pytest.approx([expected])


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        (clip(2), "expected a video of at least 3 frames, got 2"),
        (clip(4, 64, 96), "expected frames of at least 128 pixels a side, padded to multiples of 16; got 64x96"),
    ],
)
def test_videos_without_a_smoothness_are_refused_in_one_line(frames: Tensor, reason: str) -> None:
    with pytest.raises(BadArgument) as caught:
        measured("amt", MOTION, frames)
    assert str(caught.value).startswith(MOTION)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_pixels_that_are_not_finite_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiny_agent("amt")._network.comb_block[2], "bias", torch.nn.Parameter(torch.full((3,), nan)))
    with pytest.raises(BadArgument, match="motion_smoothness: expected finite pixels"):
        measured("amt", MOTION, clip(3))


def test_the_licence_of_the_weights_is_told_at_load() -> None:
    notes = tiny_agent("amt").describe()["notes"]
    assert any("CC BY-NC" in note and "forbids commercial use" in note for note in notes)


def test_a_warp_without_flow_changes_nothing_and_the_border_continues() -> None:
    images = torch.rand(1, 2, 6, 7, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(warped(images, torch.zeros(1, 2, 6, 7)), images, atol=1e-5, rtol=0.0)
    to_the_right = torch.zeros(1, 2, 6, 7)
    to_the_right[:, 0] = 100
    expected = images[..., -1:].expand_as(images)
    torch.testing.assert_close(warped(images, to_the_right), expected, atol=1e-5, rtol=0.0)
