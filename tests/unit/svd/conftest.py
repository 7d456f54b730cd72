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


@pytest.fixture(scope="session")
def tiny_wan_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with tiny models of Wan: `i2v/`, `flf2v/` (Wan 2.1), `a14b/` and `ti2v/` (Wan 2.2)."""
    from mora_env_svd.wan.tiny import make_tiny

    folder = tmp_path_factory.mktemp("tiny_wan")
    for layout in ("i2v", "flf2v", "a14b", "ti2v"):
        make_tiny(folder / layout, layout)
    return folder


@pytest.fixture(scope="session")
def tiny_svd(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Options that load a tiny Stable Video Diffusion model."""
    from mora_env_svd.svd.tiny import tiny_image_to_video

    return tiny_image_to_video(tmp_path_factory.mktemp("tiny_svd"))
