"""Pre-training makes models that learn, that agents load, and whose latents have the spread that samplers expect."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderKLTemporalDecoder
from mora_env_svd.frame_coder import LATENT_SCALE, Posterior
from mora_env_svd.seine import tiny_shapes as seine_shapes
from mora_env_svd.seine.agent import SeineAgent
from mora_env_svd.seine.options import SeineOptions
from mora_env_svd.svd import tiny_shapes as svd_shapes
from mora_env_svd.svd.agent import SvdAgent
from mora_env_svd.svd.options import SvdOptions
from mora_env_svd.tiny_autoencoder import scale_latents
from mora_environment.tiny_training import Phase
from safetensors.torch import save_file

# numpy warns about how the scheduler of diffusers reads a tensor
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
CAPTIONS = ["a red circle moves slowly left", "a blue square moves quickly up"] * 2
SIZE = {"num_frames": 3, "height": 16, "width": 16}


def clips() -> torch.Tensor:
    pixels = torch.full((len(CAPTIONS), 3, 16, 16, 3), 24, dtype=torch.uint8)
    for number in range(3):
        pixels[:, number, 4:10, 2 + 2 * number : 8 + 2 * number] = torch.tensor([220, 50, 40], dtype=torch.uint8)
    return pixels


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    save_file({"pixels": clips()}, tmp_path / "clips.safetensors")
    (tmp_path / "captions.json").write_text(json.dumps(CAPTIONS), encoding="utf-8")
    return tmp_path


@pytest.fixture
def losses(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Of each phase, which is shortened: the last loss as a share of the first."""
    found: dict[str, float] = {}

    def shorten(module: ModuleType, num_steps: int) -> None:
        train = module.train_tiny

        def short(
            parameters: Iterable[torch.nn.Parameter],
            phase: Phase,
            num_samples: int,
            loss_of: Callable[[torch.Tensor, torch.Generator], torch.Tensor],
            *,
            seed: int,
        ) -> float:
            def mean() -> float:
                with torch.no_grad():
                    drawn = [loss_of(torch.arange(num_samples), torch.Generator().manual_seed(n)) for n in range(4)]
                return float(torch.stack(drawn).mean())

            first = mean()
            last: float = train(
                parameters, replace(phase, num_steps=num_steps, batch_size=2), num_samples, loss_of, seed=seed
            )
            found[phase.name] = mean() / first
            return last

        monkeypatch.setattr(module, "train_tiny", short)

    shorten(svd_shapes, 15)
    shorten(seine_shapes, 15)
    return found


def test_scaling_changes_the_spread_of_latents_but_not_the_pictures() -> None:
    torch.manual_seed(0)
    shown = clips().permute(0, 1, 4, 2, 3).float() / 127.5 - 1.0
    kinds: list[tuple[type, dict[str, int]]] = [(AutoencoderKL, {}), (AutoencoderKLTemporalDecoder, {"num_frames": 3})]
    for kind, options in kinds:
        vae = kind(down_block_types=("DownEncoderBlock2D",) * 2, block_out_channels=(32, 32), **(
            {"up_block_types": ("UpDecoderBlock2D",) * 2} if kind is AutoencoderKL else {}
        )).eval()  # fmt: skip
        with torch.no_grad():
            before = vae.decode(vae.encode(shown[0]).latent_dist.mode(), **options).sample
            first = vae.post_quant_conv if kind is AutoencoderKL else vae.decoder.conv_in
            targets = scale_latents(vae, first, shown)
            after = Posterior.of_moments(vae.encode(shown[0]).latent_dist.parameters)
            assert float(targets.mean.std() * LATENT_SCALE) == pytest.approx(1.0, rel=1e-3)
            assert torch.allclose(after.mean, targets.mean[0], atol=1e-2)
            assert torch.allclose(after.std, targets.std[0], rtol=1e-3)
            assert torch.allclose(vae.decode(after.mean, **options).sample, before, atol=1e-4)


def test_svd_learns_and_its_agent_loads_what_was_written(
    corpus: Path, tmp_path: Path, losses: dict[str, float]
) -> None:
    folder = tmp_path / "model"
    svd_shapes.make_shapes(folder, corpus)
    assert losses[svd_shapes.AUTOENCODER.name] < 0.9, losses
    assert losses[svd_shapes.UNET_PHASE.name] < 0.9, losses
    options = SvdOptions(model=str(folder), num_inference_steps=2, **SIZE)
    agent = SvdAgent.from_options(options, torch.device("cpu"))
    assert agent.image_to_video(["a"], [1], clips()[:1, 0])["outputs"].shape == (1, 3, 16, 16, 3)


def test_seine_learns_and_its_agent_loads_what_was_written(
    corpus: Path, tmp_path: Path, losses: dict[str, float]
) -> None:
    folder = tmp_path / "model"
    seine_shapes.make_shapes(folder, corpus)
    assert losses[seine_shapes.AUTOENCODER.name] < 0.9, losses
    assert losses[seine_shapes.UNET_PHASE.name] < 0.9, losses
    options = SeineOptions(
        model=str(folder / "unet"), base=str(folder / "base"), sample_method="ddim", num_inference_steps=2, **SIZE
    )
    agent = SeineAgent.from_options(options, torch.device("cpu"))
    connected = agent.connect_videos(["a"], [1], clips()[:1, 0], clips()[:1, 2])["outputs"]
    assert connected.shape == (1, 3, 16, 16, 3)
