"""Tiny models made once for all tests of this environment, which run on one thread."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Options that load tiny models."""
    from mora_env_svd.seine.tiny import tiny_transition

    return tiny_transition(tmp_path_factory.mktemp("tiny_seine"))


@pytest.fixture(scope="session")
def tiny_folder(tiny: dict[str, Any]) -> Path:
    """The folder with `unet/` and `base/`."""
    return Path(tiny["base"]).parent
