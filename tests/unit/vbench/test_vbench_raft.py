"""RAFT's agent: dynamic degree, temporal flickering, and the videos that have no score."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from mora_env_vbench.formulas.stillness import allowed_pairs, is_still, stillness_threshold
from mora_env_vbench.raft.network import Raft
from mora_env_vbench.raft.sizes import RaftSizes
from mora_env_vbench.raft.tiny import tiny_raft
from mora_env_vbench.raft.update_block import SeparableGru
from mora_runtime.errors import BadArgument
from tiny_agents import built, clip, measured, tiny_agent
from torch import Tensor

DYNAMIC, FLICKERING = "dynamic_degree", "temporal_flickering"


def plain_step(gru: SeparableGru, hidden: Tensor, inputs: Tensor) -> Tensor:
    """The recurrence as it is published: every convolution on all inputs."""
    for number in (1, 2):
        update, reset = (
            gru.get_submodule(f"conv{gate}{number}")(torch.cat([hidden, inputs], dim=1)).sigmoid() for gate in "zr"
        )
        proposal = gru.get_submodule(f"convq{number}")(torch.cat([reset * hidden, inputs], dim=1)).tanh()
        hidden = (1 - update) * hidden + update * proposal
    return hidden


def test_the_recurrence_with_its_context_computed_once_is_the_published_one() -> None:
    torch.manual_seed(0)
    gru = SeparableGru(num_hidden=6, num_context=5, num_motion=4)
    hidden, context, motion = (torch.randn(2, channels, 7, 9) for channels in (6, 5, 4))
    with torch.no_grad():
        found = gru(hidden, motion, gru.context_parts(context))
        expected = plain_step(gru, hidden, torch.cat([context, motion], dim=1))
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


def test_the_flow_of_a_pair_does_not_depend_on_the_batch() -> None:
    torch.manual_seed(0)
    network = Raft(RaftSizes(encoder=(8, 12, 16), features=32, hidden=16, context=16)).eval()
    pictures = clip(3).permute(0, 3, 1, 2).float()
    with torch.inference_mode():
        features, context = network.features(pictures), network.context(pictures[:2])
        together = network.flow(features[:2], features[1:], context, 3)
        alone = network.flow(features[1:2], features[2:], context[1:], 3)
    torch.testing.assert_close(together[1:], alone, atol=1e-4, rtol=1e-4)


def test_pairs_have_the_same_values_whatever_the_number_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = clip(6)
    together = measured("raft", DYNAMIC, frames)["pairs"]
    assert together.shape == (5,)
    monkeypatch.setattr("mora_env_vbench.raft.agent.num_at_once", lambda wanted, num_pixels, device: 2)
    torch.testing.assert_close(measured("raft", DYNAMIC, frames)["pairs"], together, atol=0.0, rtol=1e-4)


def test_a_video_moves_if_enough_pairs_are_above_the_threshold() -> None:
    found = measured("raft", DYNAMIC, clip(16))
    assert (found["threshold"], found["needed"], found["weight"]) == (6 * 128 / 256, 4.0, 1.0)
    assert found["score"] == float((found["pairs"] > found["threshold"]).sum() >= found["needed"])


def test_frames_are_sampled_by_their_rate() -> None:
    frames = clip(9)
    every_third = measured("raft", DYNAMIC, frames, fps=24.0)
    assert torch.equal(every_third["pairs"], measured("raft", DYNAMIC, frames[::3])["pairs"])


@pytest.mark.parametrize(
    ("frames", "fps", "reason"),
    [
        (clip(4, 64, 96), 8.0, "expected frames of at least 128 pixels a side, padded to multiples of 8; got 64x96"),
        (clip(4, 120, 160), 8.0, "got 120x160"),
        (clip(2), 8.0, "expected at least 3 sampled frames, got 2: 1 of 1 is sampled"),
        (clip(8), 60.0, "got 1: 1 of 8 is sampled at 60 frames a second, of 8 frames"),
        (clip(1), 8.0, "expected a video of at least 2 frames, got 1"),
        (clip(4), 0.0, "expected a positive number of frames a second, got 0.0"),
        (clip(4), math.nan, "expected a positive number of frames a second, got nan"),
    ],
)
def test_videos_without_a_dynamic_degree_are_refused_in_one_line(frames: Tensor, fps: float, reason: str) -> None:
    with pytest.raises(BadArgument) as caught:
        measured("raft", DYNAMIC, frames, fps=fps)
    assert str(caught.value).startswith(DYNAMIC)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_side_that_padding_brings_to_128_is_accepted() -> None:
    found = measured("raft", DYNAMIC, clip(3, 160, 128)[:, :121])
    assert found["threshold"] == 6 * 121 / 256
    assert found["pairs"].isfinite().all()


def test_flickering_is_one_without_change_and_is_the_mean_difference_with_it() -> None:
    frames = torch.zeros(3, 8, 8, 3, dtype=torch.uint8)
    assert measured("raft", FLICKERING, frames)["score"] == 1.0
    frames[1] = 51
    found = measured("raft", FLICKERING, frames)
    assert found["score"] == pytest.approx(1 - 51 / 255)
    assert found["differences"].tolist() == [51.0, 51.0]


@pytest.mark.parametrize(
    ("values", "ends", "expected"),
    [
        ([1.0] * 14 + [2.0], [1.0, 1.0], True),
        ([1.0] * 13 + [2.0] * 2, [1.0, 1.0], True),
        ([1.0] * 12 + [2.0] * 3, [1.0, 1.0], False),
        ([1.0] * 15, [6.0, 1.0], True),
        ([1.0] * 15, [1.0, 6.1], False),
    ],
)
def test_a_video_is_still_if_few_pairs_move_and_its_ends_are_close(
    values: list[float], ends: list[float], expected: bool
) -> None:
    assert stillness_threshold(128, 160) == 1.5
    assert allowed_pairs(16) == 2
    assert is_still(values, ends, 1.5, 2) == expected


def test_with_the_static_filter_videos_that_move_have_no_flickering(tmp_path: Path) -> None:
    agent = built("raft", {**tiny_raft(tmp_path), "static_filter": True})
    assert agent.describe()["versions"] != tiny_agent("raft").describe()["versions"]
    with pytest.raises(BadArgument, match="expected a still video, because `static_filter` is on; 3 of 3 pairs"):
        agent.measure(FLICKERING, clip(4), 8.0, "", "")


def test_with_the_static_filter_a_still_video_has_the_same_flickering(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent, frames = built("raft", {**tiny_raft(tmp_path), "static_filter": True}), clip(4)
    monkeypatch.setattr(agent._network, "flow", lambda first, *_: torch.zeros(len(first), 2, 128, 136))
    assert agent.measure(FLICKERING, frames, 8.0, "", "")["score"] == measured("raft", FLICKERING, frames)["score"]


def test_flow_that_is_not_finite_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    network = tiny_agent("raft")._network
    monkeypatch.setattr(network, "flow", lambda first, *_: torch.full((len(first), 2, 128, 136), math.nan))
    with pytest.raises(BadArgument, match="`pairs` of this video is not finite"):
        measured("raft", DYNAMIC, clip(4))
