"""The autoencoder: shapes, tiles, batches, layouts of other configs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from mora_env_opensora.models import CausalVAEModel, InputError
from mora_env_opensora.models.vae.tiling import time_chunks
from mora_env_opensora.tiny import VAE_CONFIG


@pytest.fixture(scope="module")
def vae(tiny: Path) -> CausalVAEModel:
    return CausalVAEModel.from_pretrained(tiny / "vae").requires_grad_(False)


@pytest.mark.parametrize(("frames", "latents"), [(1, 1), (5, 2), (9, 3)])
def test_frames_and_latents_correspond(vae: CausalVAEModel, frames: int, latents: int) -> None:
    posterior = vae.encode(torch.zeros(1, 3, frames, 32, 16))
    assert posterior.mean.shape == (1, 4, latents, 4, 2)
    assert vae.decode(posterior.mode()).shape == (1, 3, frames, 32, 16)


def test_a_batch_gives_the_same_result_as_single_clips(vae: CausalVAEModel) -> None:
    video = torch.rand(2, 3, 5, 32, 32)
    assert torch.equal(vae.encode(video).mean[1:], vae.encode(video[1:]).mean)


def test_posterior_sample_comes_from_the_generator(vae: CausalVAEModel) -> None:
    posterior = vae.encode(torch.rand(1, 3, 5, 32, 32))
    samples = [posterior.sample(torch.Generator().manual_seed(3)) for _ in range(2)]
    assert torch.equal(*samples)
    noise = torch.randn(posterior.mean.shape, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(samples[0], posterior.mean + torch.exp(posterior.logvar / 2) * noise)


@pytest.mark.parametrize(
    ("frames", "chunk", "expected"),
    [
        (1, 33, [(0, 1)]),
        (32, 33, [(0, 32)]),
        (33, 33, [(0, 33)]),
        (34, 33, [(0, 33), (32, 34)]),
        (65, 33, [(0, 33), (32, 65)]),
        (93, 33, [(0, 33), (32, 65), (64, 93)]),
    ],
)
def test_time_chunks_share_one_frame(frames: int, chunk: int, expected: list[tuple[int, int]]) -> None:
    assert time_chunks(frames, chunk) == expected


def test_tiles_are_used_only_beyond_their_size(vae: CausalVAEModel) -> None:
    video = torch.rand(1, 3, 9, 48, 32)
    whole = vae.encode(video).mean
    vae.enable_tiling()
    try:
        assert torch.equal(vae.encode(video).mean, whole)
        vae.tile_sample_min_size, vae.tile_latent_min_size = 32, 4
        with pytest.raises(InputError, match="tiles of at least 8 pixels"):
            vae.encode(video)  # steps of 28 pixels leave 4 of 32
        vae.tile_overlap_factor = 0.25
        tiled = vae.encode(video).mean
    finally:
        vae.enable_tiling(False)
        vae.tile_sample_min_size, vae.tile_latent_min_size, vae.tile_overlap_factor = 256, 32, 0.125
    assert tiled.shape == whole.shape
    assert not torch.equal(tiled, whole)


def test_gradients_flow_through_tiles(tiny: Path) -> None:
    gradients = []
    video = torch.rand(1, 3, 9, 48, 32)
    for recompute in (False, True):
        vae = CausalVAEModel.from_pretrained(tiny / "vae").requires_grad_(False)
        vae.enable_tiling()
        vae.tile_sample_min_size, vae.tile_latent_min_size, vae.tile_sample_min_size_t = 32, 4, 5
        vae.tile_overlap_factor = 0.25
        vae.enable_gradient_checkpointing(recompute)
        leaf = video.clone().requires_grad_()
        vae.encode(leaf).mean.square().sum().backward()
        gradients.append(leaf.grad)
    assert gradients[0].abs().max() > 0
    assert torch.equal(*gradients)


@pytest.mark.parametrize(
    "shape", [(1, 3, 5, 30, 32), (1, 4, 5, 32, 32), (3, 5, 32, 32)], ids=["side", "channels", "axes"]
)
def test_videos_that_do_not_fit_are_refused(vae: CausalVAEModel, shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"CausalVAEModel\.encode: expected"):
        vae.encode(torch.zeros(shape))


def test_latents_that_do_not_fit_are_refused(vae: CausalVAEModel) -> None:
    with pytest.raises(InputError, match=r"CausalVAEModel\.decode: expected"):
        vae.decode(torch.zeros(1, 3, 2, 4, 4))


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"encoder_conv_in": "CausalConv3d"}, "encoder.conv_in.conv.weight"),
        ({"decoder_conv_in": "Conv2d", "decoder_conv_out": "Conv2d"}, "decoder.conv_out.weight"),
        ({"q_conv": "Conv2d"}, "quant_conv.weight"),
        ({"encoder_mid_resnet": "ResnetBlock2D"}, "encoder.mid.block_1.conv1.weight"),
        ({"decoder_resnet_blocks": ["ResnetBlock2D"] * 4}, "decoder.up.3.block.0.conv1.weight"),
        ({"encoder_attention": "AttnBlock3D", "decoder_attention": "AttnBlock3D"}, "encoder.mid.attn_1.q.conv.weight"),
        ({"encoder_resnet_blocks": ["ResnetBlock3D"] * 4}, "encoder.down.0.block.0.conv1.conv.weight"),
    ],
)
def test_other_block_names_build_and_run(changes: dict[str, Any], key: str) -> None:
    vae = CausalVAEModel.from_config(VAE_CONFIG | changes).requires_grad_(False)
    assert key in vae.state_dict()
    posterior = vae.encode(torch.rand(1, 3, 5, 16, 16))
    assert vae.decode(posterior.mean).shape == (1, 3, 5, 16, 16)


def test_without_quant_layer_there_are_no_quant_keys() -> None:
    vae = CausalVAEModel.from_config(VAE_CONFIG | {"use_quant_layer": False})
    assert not any("quant" in key for key in vae.state_dict())
    assert vae.encode(torch.rand(1, 3, 1, 16, 16)).mean.shape == (1, 4, 1, 2, 2)


def test_legacy_attention_mixes_channel_and_time() -> None:
    torch.manual_seed(0)
    fixed = CausalVAEModel.from_config(VAE_CONFIG).requires_grad_(False)
    legacy = CausalVAEModel.from_config(VAE_CONFIG | {"encoder_attention": "AttnBlock3D"}).requires_grad_(False)
    legacy.load_state_dict(fixed.state_dict(), strict=True)
    still, moving = torch.rand(1, 3, 1, 16, 16), torch.rand(1, 3, 5, 16, 16)
    torch.testing.assert_close(legacy.encode(still).mean, fixed.encode(still).mean)
    assert not torch.allclose(legacy.encode(moving).mean, fixed.encode(moving).mean)
