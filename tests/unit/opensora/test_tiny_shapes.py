"""Pre-training makes a chain that learns, whose latents have the spread that the diffusion model expects."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from mora_env_opensora import tiny_shapes
from mora_env_opensora.agent import OpenSoraAgent
from mora_env_opensora.conditioning import LATENT_SCALE
from mora_env_opensora.models import CausalVAEModel
from mora_env_opensora.options import OpenSoraOptions
from mora_env_opensora.tiny import VAE_CONFIG
from safetensors.torch import save_file

CAPTIONS = ["a red circle moves slowly left", "a blue square moves quickly up"] * 2


def clips() -> torch.Tensor:
    pixels = torch.full((len(CAPTIONS), 5, 32, 32, 3), 24, dtype=torch.uint8)
    for number in range(5):
        pixels[:, number, 8:20, 8 + 2 * number : 20 + 2 * number] = torch.tensor([220, 50, 40], dtype=torch.uint8)
    return pixels


def test_scaling_changes_the_spread_of_latents_but_not_the_pictures() -> None:
    torch.manual_seed(0)
    vae = CausalVAEModel.from_config(VAE_CONFIG).eval().requires_grad_(False)
    shown = clips().permute(0, 4, 1, 2, 3).float() / 127.5 - 1.0
    before = vae.decode(vae.encode(shown).mode())
    targets = tiny_shapes.scale_latents(vae, shown)
    after = vae.encode(shown)
    assert float(after.mean.std() * LATENT_SCALE) == pytest.approx(1.0, rel=1e-3)
    assert torch.allclose(after.mean, targets.mean, atol=1e-2)
    assert torch.allclose(after.std, targets.std, rtol=1e-3)
    assert torch.allclose(vae.decode(after.mode()), before, atol=1e-4)


def test_a_few_steps_lower_the_loss_and_the_agent_loads_what_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_file({"pixels": clips()}, tmp_path / "clips.safetensors")
    (tmp_path / "captions.json").write_text(json.dumps(CAPTIONS), encoding="utf-8")
    losses: dict[str, float] = {}
    train = tiny_shapes.train_tiny

    def short(parameters, phase, num_samples, loss_of, *, seed):  # type: ignore[no-untyped-def]
        with torch.no_grad():
            first = float(loss_of(torch.arange(num_samples), torch.Generator().manual_seed(9)))
        last = train(parameters, replace(phase, num_steps=15, batch_size=4), num_samples, loss_of, seed=seed)
        losses[phase.name] = last / first
        return last

    monkeypatch.setattr(tiny_shapes, "train_tiny", short)
    folder = tmp_path / "model"
    tiny_shapes.make_shapes(folder, tmp_path)
    assert losses["video autoencoder, frames"] < 0.8, losses
    assert losses["video transformer"] < 0.9, losses
    options = OpenSoraOptions(
        model=str(folder / "transformer_i2v"), vae=str(folder / "vae"), text_encoder=str(folder / "text_encoder"),
        num_frames=5, height=32, width=32, max_length=32, scheduler="dpm_solver", num_inference_steps=2,
    )  # fmt: skip
    agent = OpenSoraAgent.from_options(options, torch.device("cpu"))
    made = agent.image_to_video(CAPTIONS[:1], [1], clips()[:1, 0])["outputs"]
    assert made.shape == (1, 5, 32, 32, 3)
    assert int(made.float().std()) > 0
