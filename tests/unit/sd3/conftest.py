"""A tiny Stable Diffusion 3, made once for these tests."""

from pathlib import Path

import pytest
import torch
from mora_env_sd3.agent import Sd3Agent
from mora_env_sd3.options import Sd3Options
from mora_env_sd3.tiny import make_tiny

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny") / "sd3"
    make_tiny(folder)
    return folder


@pytest.fixture(scope="session")
def options(model: Path) -> Sd3Options:
    return Sd3Options(
        model=str(model), height=32, width=32, num_inference_steps=3, guidance_scale=3.0, max_sequence_length=16
    )


@pytest.fixture(scope="session")
def agent(options: Sd3Options) -> Sd3Agent:
    return Sd3Agent(options, torch.device("cpu"))
