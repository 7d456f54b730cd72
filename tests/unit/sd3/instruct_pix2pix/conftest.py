"""A tiny InstructPix2Pix, made once for these tests."""

from typing import Any

import pytest
import torch
from mora_env_sd3.instruct_pix2pix.agent import InstructPix2PixAgent
from mora_env_sd3.instruct_pix2pix.options import InstructPix2PixOptions
from mora_env_sd3.instruct_pix2pix.tiny import tiny_edit


@pytest.fixture(scope="session")
def edit_options(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Options of the tiny InstructPix2Pix."""
    return tiny_edit(tmp_path_factory.mktemp("tiny") / "instruct_pix2pix")


@pytest.fixture(scope="session")
def edit_agent(edit_options: dict[str, Any]) -> InstructPix2PixAgent:
    return InstructPix2PixAgent(InstructPix2PixOptions(**edit_options), torch.device("cpu"))
