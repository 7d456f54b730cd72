"""Calls to a training server between two trainings change neither training and load no encoder twice."""

import pytest
import torch
from mora_env_sd3.agent import Sd3Agent
from mora_env_sd3.options import Sd3Options

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning")
PROMPT = "a red circle moves left over the sea"


@pytest.fixture
def fresh(options: Sd3Options) -> Sd3Agent:
    return Sd3Agent(options, torch.device("cpu"))


def make_candidate(agent: Sd3Agent) -> None:
    agent.modulation_rows(text="[Mod]", new_token=False)
    keys = agent.encode(prompts=[PROMPT])["keys"]
    agent.unload_text_encoder()
    with torch.no_grad():
        agent.forward(z=None, prompt_keys=keys, seeds=[5])
    agent.initial_noise(seed=5)


def test_a_candidate_leaves_the_global_generator_alone(fresh: Sd3Agent) -> None:
    before = torch.get_rng_state()
    make_candidate(fresh)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("new_token", [False, True])
def test_training_on_known_prompts_does_not_load_the_encoders_again(fresh: Sd3Agent, new_token: bool) -> None:
    make_candidate(fresh)
    first = fresh.modulation_rows(text="[Mod]", new_token=new_token)["rows"]
    fresh.unload_text_encoder()
    fresh.encode(prompts=[PROMPT])
    again = fresh.modulation_rows(text="[Mod]", new_token=new_token)["rows"]
    assert fresh._encoders._pipeline is None
    assert torch.equal(again, first)
