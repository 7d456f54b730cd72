"""Pictures that are cancelled while others of their batch are decoded are not decoded; the others keep their bytes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from mora_env_sd3.agent import Sd3Agent
from mora_runtime.errors import Cancelled

PROMPTS = ["a red circle", "a blue square", "a green ball"]
SEEDS = [1, 2, 3]


@pytest.fixture
def decoded(agent: Sd3Agent, monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """The pictures that the autoencoder has made, in order."""
    made: list[torch.Tensor] = []
    decode = agent.renderer.decode

    def recorded(latents: torch.Tensor) -> Any:
        made.append(decode(latents))
        return made[-1]

    monkeypatch.setattr(agent.renderer, "decode", recorded)
    return made


def test_pictures_that_are_cancelled_during_the_decode_are_left_out(
    agent: Sd3Agent, decoded: list[torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = agent.text_to_image(PROMPTS, SEEDS)["outputs"]
    decoded.clear()
    monkeypatch.setattr(
        "mora_env_sd3.pictures.picture_agent.cancelled_samples", lambda: frozenset({1}) if decoded else frozenset()
    )
    made = agent.text_to_image(PROMPTS, SEEDS)["outputs"]
    assert len(decoded) == 2
    assert not made[1].any()
    assert torch.equal(made[0], whole[0])
    assert torch.equal(made[2], whole[2])


def test_a_batch_that_is_cancelled_during_the_decode_ends_with_the_picture_that_is_decoded(
    agent: Sd3Agent, decoded: list[torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    def report(step: int, num_steps: int) -> None:
        if decoded:
            raise Cancelled("the caller cancelled this call")

    monkeypatch.setattr("mora_env_sd3.pictures.picture_agent.report_step", report)
    with pytest.raises(Cancelled):
        agent.text_to_image(PROMPTS, SEEDS)
    assert len(decoded) == 1


def test_given_pictures_of_a_cancelled_batch_are_not_encoded_further(
    agent: Sd3Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[int] = []
    encode = agent.renderer.encode

    def recorded(pixels: torch.Tensor, seeds: Any) -> torch.Tensor:
        encoded.append(len(pixels))
        return encode(pixels, seeds)

    def report(step: int, num_steps: int) -> None:
        if encoded:
            raise Cancelled("the caller cancelled this call")

    monkeypatch.setattr(agent.renderer, "encode", recorded)
    monkeypatch.setattr("mora_env_sd3.pictures.picture_agent.report_step", report)
    with pytest.raises(Cancelled):
        agent.image_to_image(PROMPTS, SEEDS, torch.zeros(3, 32, 32, 3, dtype=torch.uint8), 0.7)
    assert encoded == [1]
