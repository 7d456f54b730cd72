"""The tiny InstructPix2Pix that edits shapes: pre-training lowers the losses, and the agent loads what was written."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from mora_env_sd3 import tiny_shapes as picture_shapes
from mora_env_sd3.instruct_pix2pix import tiny_shapes
from mora_env_sd3.instruct_pix2pix.agent import InstructPix2PixAgent
from mora_env_sd3.instruct_pix2pix.options import InstructPix2PixOptions
from mora_env_sd3.pictures.tiny_parts import tiny_vae
from mora_env_sd3.unet import tiny_shapes as unet_shapes
from safetensors.torch import save_file

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning")
CAPTIONS = ["a red circle moves slowly left", "a blue square moves quickly up"] * 4


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    pixels = torch.full((len(CAPTIONS), 2, 32, 32, 3), 24, dtype=torch.uint8)
    pixels[:, :, 8:20, 10:22] = torch.tensor([220, 50, 40], dtype=torch.uint8)
    save_file({"pixels": pixels}, folder / "clips.safetensors")
    (folder / "captions.json").write_text(json.dumps(CAPTIONS), encoding="utf-8")
    return folder


def test_a_few_steps_lower_the_losses_and_the_agent_loads_what_was_written(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses: dict[str, float] = {}
    train = picture_shapes.train_tiny

    def short(parameters, phase, num_samples, loss_of, *, seed):  # type: ignore[no-untyped-def]
        parameters = list(parameters)
        with torch.no_grad():
            first = float(loss_of(torch.arange(num_samples), torch.Generator().manual_seed(9)))
        last: float = train(parameters, replace(phase, num_steps=40, batch_size=8), num_samples, loss_of, seed=seed)
        losses[phase.name] = last / first
        return last

    monkeypatch.setattr(picture_shapes, "train_tiny", short)
    monkeypatch.setattr(unet_shapes, "train_tiny", short)
    folder = tmp_path / "model"
    tiny_shapes.make_shapes(folder, data)
    assert losses["image autoencoder"] < 0.3, losses
    assert losses["editing unet"] < 0.8, losses
    options = InstructPix2PixOptions(model=str(folder), height=32, width=32, num_inference_steps=2)
    agent = InstructPix2PixAgent(options, torch.device("cpu"))
    made = agent.edit_image(CAPTIONS[:1], [1], torch.zeros(1, 32, 32, 3, dtype=torch.uint8))["outputs"]
    assert int(made.float().std()) > 0
    num_tokens = len(agent._encoders._loaded().tokenizer("a red circle", add_special_tokens=False).input_ids)
    assert num_tokens == 3, "every word of the captions has a token of its own"


def test_standardised_latents_decode_to_the_same_pictures() -> None:
    torch.manual_seed(3)
    autoencoder = tiny_vae(latent_channels=4).eval()
    pictures = torch.rand(6, 3, 32, 32) * 2.0 - 1.0
    with torch.no_grad():
        before = autoencoder.encode(pictures).latent_dist
        expected = autoencoder.decode(before.mean).sample
        unet_shapes.standardise(autoencoder, before.mean)
        after = autoencoder.encode(pictures).latent_dist
        found = autoencoder.decode(after.mean).sample
    assert torch.allclose(after.mean.mean(dim=(0, 2, 3)), torch.zeros(4), atol=1e-4)
    assert torch.allclose(after.mean.std(dim=(0, 2, 3)), torch.ones(4), atol=1e-4)
    scale = before.mean.std(dim=(0, 2, 3)).view(1, -1, 1, 1)
    assert torch.allclose(after.std, before.std / scale, rtol=1e-4)
    assert torch.allclose(found, expected, atol=1e-4)


def test_pairs_and_dropped_conditions_have_their_shares() -> None:
    generator, indices = torch.Generator().manual_seed(0), torch.arange(20_000)
    given = tiny_shapes.given_indices(indices, len(indices), generator)
    assert float((given == indices).float().mean()) == pytest.approx(0.3, abs=0.02)
    no_text, no_picture = tiny_shapes.dropped(len(indices), generator)
    shares = [(no_text & ~no_picture), (no_picture & ~no_text), (no_text & no_picture)]
    assert [float(share.float().mean()) for share in shares] == pytest.approx([0.05] * 3, abs=0.01)
