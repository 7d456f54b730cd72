"""Frames are sent as they are decoded, in chunks of time; together with the last chunk they are the clip."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from mora_env_opensora.agent import OpenSoraAgent
from mora_env_opensora.options import OpenSoraOptions

IMAGES = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
NUM_FRAMES = 13


@pytest.fixture(scope="module")
def agent(tiny: Path) -> OpenSoraAgent:
    options = OpenSoraOptions(
        model=str(tiny / "transformer_i2v"), vae=str(tiny / "vae"), text_encoder=str(tiny / "text_encoder"),
        num_frames=NUM_FRAMES, height=32, width=32, max_length=32, num_inference_steps=4, guidance_scale=3.0,
        vae_tiling=True,
    )  # fmt: skip
    made = OpenSoraAgent.from_options(options, torch.device("cpu"))
    made._vae.tile_latent_min_size_t = 2
    return made


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    sent: list[dict[str, Any]] = []
    monkeypatch.setattr("mora_env_opensora.agent.report_part", lambda **values: sent.append(values))
    return sent


def check(parts: list[dict[str, Any]], outputs: torch.Tensor) -> None:
    for sample, clip in enumerate(outputs):
        own = [part for part in parts if part["sample"] == sample]
        assert own
        assert own[0]["start"] == 0
        for part, following in zip(own, [*own[1:], None], strict=True):
            end = part["start"] + len(part["outputs"])
            assert torch.equal(part["outputs"], clip[part["start"] : end])
            assert end == following["start"] if following else end < len(clip)


def test_the_parts_of_each_clip_are_its_first_frames(agent: OpenSoraAgent, parts: list[dict[str, Any]]) -> None:
    check(parts, agent.image_to_video(["a cat", "a dog"], [3, 4], IMAGES)["outputs"])


@pytest.mark.parametrize("given", [1, 6])
def test_the_parts_of_a_continuation_begin_after_the_given_frames(
    agent: OpenSoraAgent, parts: list[dict[str, Any]], given: int
) -> None:
    videos = IMAGES[:1, None].repeat(1, given, 1, 1, 1)
    outputs = agent.extend_video(["a cat"], [3], videos)["outputs"]
    assert outputs.shape[1] == NUM_FRAMES - given
    check(parts, outputs)


def test_a_clip_that_is_decoded_in_one_piece_sends_no_part(agent: OpenSoraAgent, parts: list[dict[str, Any]]) -> None:
    agent._vae.enable_tiling(False)
    try:
        agent.image_to_video(["a cat"], [3], IMAGES[:1])
    finally:
        agent._vae.enable_tiling()
    assert parts == []
