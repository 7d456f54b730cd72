"""With `batch_invariant: false` a batch of requests is one pass; its pictures are those of the default but for bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from mora_env_sd3.agent import Sd3Agent
from mora_env_sd3.options import Sd3Options

PROMPTS = ["a red circle", "a blue square", "a green ball"]
SEEDS = [1, 2, 3]
NUM_STEPS = 3


@pytest.fixture(scope="module")
def one_pass(options: Sd3Options) -> Sd3Agent:
    return Sd3Agent(options.model_copy(update={"batch_invariant": False}), torch.device("cpu"))


@pytest.fixture
def sizes(one_pass: Sd3Agent, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[int]]:
    """Number of samples in each call of the model and of the autoencoder's two halves."""
    found: dict[str, list[int]] = {"velocity": [], "encode": [], "decode": []}

    def counted(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(samples: torch.Tensor, *arguments: Any) -> Any:
            found[name].append(len(samples))
            return method(samples, *arguments)

        return call

    for name in found:
        monkeypatch.setattr(one_pass.renderer, name, counted(name, getattr(one_pass.renderer, name)))
    return found


def pictures() -> torch.Tensor:
    return torch.randint(0, 256, (3, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_a_batch_is_one_forward_in_each_step_and_one_decode(one_pass: Sd3Agent, sizes: dict[str, list[int]]) -> None:
    one_pass.text_to_image(PROMPTS, SEEDS)
    assert sizes == {"velocity": [3] * NUM_STEPS, "encode": [], "decode": [3]}


def test_given_pictures_are_encoded_in_one_pass(one_pass: Sd3Agent, sizes: dict[str, list[int]]) -> None:
    one_pass.image_to_image(PROMPTS, SEEDS, pictures(), 1.0)
    assert sizes == {"velocity": [3] * NUM_STEPS, "encode": [3], "decode": [3]}


def test_the_pictures_are_those_of_the_default_within_a_step_of_brightness(agent: Sd3Agent, one_pass: Sd3Agent) -> None:
    given = pictures()
    for made, expected in (
        (one_pass.text_to_image(PROMPTS, SEEDS), agent.text_to_image(PROMPTS, SEEDS)),
        (one_pass.image_to_image(PROMPTS, SEEDS, given, 0.7), agent.image_to_image(PROMPTS, SEEDS, given, 0.7)),
    ):
        assert (made["outputs"].int() - expected["outputs"].int()).abs().max() <= 1
        assert made["outputs"].float().std() > 0


def test_a_cancelled_sample_leaves_the_batch(
    one_pass: Sd3Agent, sizes: dict[str, list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[int] = []
    monkeypatch.setattr("mora_env_sd3.pictures.picture_agent.report_step", lambda step, num_steps: steps.append(step))
    monkeypatch.setattr(
        "mora_env_sd3.pictures.picture_agent.cancelled_samples",
        lambda: frozenset({1}) if steps[-1] >= 1 else frozenset(),
    )
    made = one_pass.text_to_image(PROMPTS, SEEDS)["outputs"]
    assert sizes["velocity"] == [3, 2, 2]
    assert sizes["decode"] == [2]
    assert made[[0, 2]].flatten(1).any(1).all()
    assert not made[1].any()


def test_the_agent_tells_which_it_is(agent: Sd3Agent, one_pass: Sd3Agent) -> None:
    assert agent.describe()["batch_invariant"] is True
    assert one_pass.describe()["batch_invariant"] is False
