"""ViCLIP's agent: how well a video fits its prompt, and features of videos and texts."""

from __future__ import annotations

import pytest
import torch
from mora_runtime.errors import BadArgument
from tiny_agents import clip, measured, tiny_agent

STYLE, CONSISTENCY = "temporal_style", "overall_consistency"


def test_the_score_is_the_cosine_of_both_features() -> None:
    agent, frames = tiny_agent("viclip"), clip(10)
    video, text = agent.features(frames)["features"], agent.text_features("a cat")["features"]
    assert video.norm().item() == pytest.approx(1.0, abs=1e-6)
    assert text.norm().item() == pytest.approx(1.0, abs=1e-6)
    assert measured("viclip", STYLE, frames)["score"] == pytest.approx(float(video @ text), abs=1e-7)
    assert measured("viclip", CONSISTENCY, frames)["score"] == measured("viclip", STYLE, frames)["score"]


def test_another_prompt_has_another_score() -> None:
    frames = clip(8)
    assert measured("viclip", STYLE, frames, prompt="a dog")["score"] != measured("viclip", STYLE, frames)["score"]


def test_the_order_of_frames_matters() -> None:
    frames = clip(8)
    assert measured("viclip", STYLE, frames.flip(0))["score"] != measured("viclip", STYLE, frames)["score"]


def test_a_short_video_repeats_its_last_frame() -> None:
    frames = clip(5)
    longer = torch.cat([frames, *[frames[-1:]] * 3])
    assert measured("viclip", STYLE, frames)["score"] == measured("viclip", STYLE, longer)["score"]


def test_a_long_prompt_is_cut_to_the_length_of_the_text_encoder() -> None:
    agent = tiny_agent("viclip")
    cut = agent.text_features("landscape " * 30)["features"]
    assert torch.equal(cut, agent.text_features("landscape " * 40)["features"])
    assert not torch.equal(cut, agent.text_features("landscape " * 10)["features"])


@pytest.mark.parametrize(
    ("num_frames", "prompt", "reason"),
    [(8, " ", "expected the prompt of this video, got none"), (1, "a cat", "at least 2 frames, got 1")],
)
def test_a_video_without_prompt_or_of_one_frame_is_refused(num_frames: int, prompt: str, reason: str) -> None:
    with pytest.raises(BadArgument) as caught:
        measured("viclip", STYLE, clip(num_frames), prompt=prompt)
    assert str(caught.value).startswith(STYLE)
    assert reason in str(caught.value)
