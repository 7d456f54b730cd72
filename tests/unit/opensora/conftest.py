"""A tiny chain made once for all tests of the video environment."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from mora_env_opensora.tiny import make_tiny

    folder = tmp_path_factory.mktemp("tiny_opensora")
    make_tiny(folder)
    return folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        # transformers 4.40 and huggingface_hub 0.25 under torch 2.13: raised inside their own modules.
        item.add_marker(pytest.mark.filterwarnings("ignore::FutureWarning:huggingface_hub.*"))
        item.add_marker(pytest.mark.filterwarnings("ignore::FutureWarning:transformers.*"))
        item.add_marker(pytest.mark.filterwarnings("ignore::FutureWarning:diffusers.*"))
