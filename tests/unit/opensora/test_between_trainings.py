"""Calls to a training server between two trainings change neither training and load no encoder twice."""

from pathlib import Path

import pytest
import torch
from mora_env_opensora.agent import OpenSoraAgent
from mora_env_opensora.options import OpenSoraOptions

PROMPT = "a red circle moves left over the sea"


@pytest.fixture
def fresh(tiny: Path) -> OpenSoraAgent:
    options = OpenSoraOptions(
        model=str(tiny / "transformer_i2v"), vae=str(tiny / "vae"), text_encoder=str(tiny / "text_encoder"),
        num_frames=9, height=32, width=32, max_length=32, num_inference_steps=4, guidance_scale=3.0,
    )  # fmt: skip
    return OpenSoraAgent.from_options(options, torch.device("cpu"))


def make_candidate(agent: OpenSoraAgent) -> None:
    agent.modulation_rows(text="[Mod]")
    keys = agent.encode(prompts=[PROMPT])["keys"]
    agent.unload_text_encoder()
    with torch.no_grad():
        agent.generate(z=None, prompt_keys=keys, seeds=[5], images=torch.zeros(1, 3, 32, 32))
    agent.initial_noise(seed=5)


def test_a_candidate_leaves_the_global_generator_alone(fresh: OpenSoraAgent) -> None:
    before = torch.get_rng_state()
    make_candidate(fresh)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("new_token", [False, True])
def test_training_on_known_prompts_does_not_load_the_encoder_again(fresh: OpenSoraAgent, new_token: bool) -> None:
    make_candidate(fresh)
    first = fresh.modulation_rows(text="[Mod]", new_token=new_token)["rows"]
    fresh.unload_text_encoder()
    fresh.encode(prompts=[PROMPT])
    again = fresh.modulation_rows(text="[Mod]", new_token=new_token)["rows"]
    assert not fresh._encoder.loaded
    assert torch.equal(again, first)
