"""Tiny models under the names of the published ones, on the Hub of `tests/fake_hub`."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from mora_launch.config.train_config import load_config
from mora_launch.environments.tiny_models import ensure_tiny_models
from mora_launch.environments.venvs import ROOT
from mora_launch.terminal import terminal
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from fake_hub.hub import FakeHub, Repository

SD3, OPEN_SORA, MT5 = (
    "stabilityai/stable-diffusion-3-medium-diffusers", "LanguageBind/Open-Sora-Plan-v1.2.0", "google/mt5-xxl",
)  # fmt: skip
TOKEN = "hf_mine"


@pytest.fixture
def published() -> Iterator[FakeHub]:
    """A Hub with the three repositories of the paper's models; the first is gated, the last has only a pickle."""
    ensure_tiny_models(load_config(ROOT / "configs" / "tiny.yaml", ()), terminal())
    tiny = ROOT / "models" / "tiny"
    image = Repository.of_folder(tiny / "sd3")
    image.is_gated = True
    image.files["transformer/diffusion_pytorch_model.fp16.safetensors"] = b"not wanted"
    video = Repository.of_folder(tiny / "opensora" / "transformer_i2v", "93x480p_i2v/")
    video.files |= Repository.of_folder(tiny / "opensora" / "vae", "vae/").files
    text = Repository.of_folder(tiny / "opensora" / "tokenizer")
    encoder = tiny / "opensora" / "text_encoder"
    weights = load_file(encoder / "model.safetensors")
    pickled = io.BytesIO()
    torch.save(weights | {"decoder.block.0.weight": torch.ones(64, 64)}, pickled)
    text.files |= {"pytorch_model.bin": pickled.getvalue(), "config.json": (encoder / "config.json").read_bytes()}
    with FakeHub({SD3: image, OPEN_SORA: video, MT5: text}) as hub:
        hub.tokens[TOKEN] = {SD3}
        yield hub
