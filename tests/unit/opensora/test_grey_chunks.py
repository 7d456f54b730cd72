"""Encoding of clips with a few given frames: chunks of grey frames are constants, and nothing else changes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from mora_env_opensora.conditioning import masked_latents, place_frames
from mora_env_opensora.models import CausalVAEModel
from torch import Tensor

_SIDE, _CHUNK = 48, 9


@pytest.fixture
def vae(tiny: Path) -> CausalVAEModel:
    """With tiles of 32 x 32 pixels and chunks of 9 frames, so that clips of 25 frames have 3 chunks."""
    vae = CausalVAEModel.from_pretrained(tiny / "vae").requires_grad_(False)
    vae.enable_tiling()
    vae.tile_sample_min_size, vae.tile_latent_min_size, vae.tile_sample_min_size_t = 32, 4, _CHUNK
    vae.tile_overlap_factor = 0.25
    return vae


def _images(given: Sequence[int], batch: int = 1) -> list[Tensor]:
    generator = torch.Generator().manual_seed(7)
    return [torch.rand(batch, 3, _SIDE, _SIDE, generator=generator) * 2 - 1 for _ in given]


def _encoded(
    vae: CausalVAEModel, frames: int, given: Sequence[int], batch: int, *, told: bool
) -> tuple[Tensor, list[Tensor]]:
    """Latents of the masked clip, and the gradients of a weighted sum of them in the images."""
    images = [image.requires_grad_() for image in _images(given, batch)]
    generator = torch.Generator().manual_seed(8)
    noise, weights = torch.randn((2, batch, 4, (frames - 1) // 4 + 1, _SIDE // 8, _SIDE // 8), generator=generator)
    latents = masked_latents(vae, place_frames(images, given, frames), noise, given=given if told else None)
    if not latents.requires_grad:
        return latents, []
    return latents.detach(), list(torch.autograd.grad((latents * weights).sum(), images))


def _count_tiles(vae: CausalVAEModel) -> list[int]:
    """A list that gets the number of frames of every tile that passes through the encoder."""
    tiles: list[int] = []
    vae.encoder.register_forward_pre_hook(lambda module, inputs: tiles.append(inputs[0].shape[2]))
    return tiles


@pytest.mark.parametrize(
    ("frames", "given", "batch", "tiling", "recompute"),
    [
        (25, (0,), 1, True, False),
        (25, (0,), 2, True, True),
        (25, (0, -1), 1, True, True),
        (25, tuple(range(5)), 1, True, True),
        (25, tuple(range(10)), 2, True, True),  # frame 8 belongs to two chunks
        (21, (0,), 1, True, True),  # the last chunk is shorter
        (9, (0,), 1, True, True),
        (1, (0,), 1, True, True),
        (25, (0,), 2, False, True),
    ],
)
def test_latents_and_gradients_are_those_of_the_whole_clip(
    vae: CausalVAEModel, frames: int, given: tuple[int, ...], batch: int, tiling: bool, recompute: bool
) -> None:
    vae.enable_tiling(tiling)
    vae.enable_gradient_checkpointing(recompute)
    whole, whole_gradients = _encoded(vae, frames, given, batch, told=False)
    for _ in range(2):  # the second time with known chunks
        latents, gradients = _encoded(vae, frames, given, batch, told=True)
        assert torch.equal(latents, whole)
        assert all(map(torch.equal, gradients, whole_gradients))
    assert any(gradient.any() for gradient in gradients)
    with torch.no_grad():
        whole, _ = _encoded(vae, frames, given, batch, told=False)
        assert torch.equal(_encoded(vae, frames, given, batch, told=True)[0], whole)


def test_grey_chunks_are_encoded_once(vae: CausalVAEModel) -> None:
    tiles = _count_tiles(vae)
    _encoded(vae, 21, (0,), 1, told=True)
    assert tiles == [9] * 8 + [5] * 4  # four tiles each: the given frame's chunk, a full grey one, a shorter grey one
    tiles.clear()
    _encoded(vae, 21, (0,), 3, told=True)
    assert tiles == [9] * 12
    tiles.clear()
    _encoded(vae, 21, (-1,), 1, told=True)  # the last chunk is now the only one with content
    assert sorted(tiles) == [5] * 4
    tiles.clear()
    _encoded(vae, 21, (8,), 1, told=True)  # the frame that the first two chunks share
    assert tiles == [9] * 8


def test_chunks_without_a_given_frame_leave_no_graph(vae: CausalVAEModel) -> None:
    images = [image.requires_grad_() for image in _images((0,))]
    latents = vae.encode(place_frames(images, (0,), 25), given=(0,)).mean
    first, last = latents[:, :, :3].sum(), latents[:, :, 3:].sum()
    (gradient,) = torch.autograd.grad(first, images, retain_graph=True)
    assert gradient.any()
    (gradient,) = torch.autograd.grad(last, images)
    assert not gradient.any()


def test_new_weights_and_another_dtype_forget_the_known_chunks(vae: CausalVAEModel) -> None:
    def check() -> Tensor:
        with torch.no_grad():
            found, _ = _encoded(vae, 25, (0,), 1, told=True)
            assert torch.equal(found, _encoded(vae, 25, (0,), 1, told=False)[0])
        return found

    found = [check()]
    other = {name: tensor + 0.01 for name, tensor in vae.state_dict().items()}
    vae.load_state_dict(other)
    found.append(check())
    vae.load_state_dict({name: tensor + 0.02 for name, tensor in other.items()}, assign=True)
    vae.requires_grad_(False)
    found.append(check())
    with torch.no_grad():
        vae.encoder.norm_out.bias.add_(0.1)
    found.append(check())
    vae.encoder.double().float()
    found.append(check())
    vae.to(torch.bfloat16)
    found.append(check())
    vae.to(torch.float32)  # the weights that bfloat16 has rounded
    found.append(check())
    assert not any(torch.equal(one, two) for one, two in pairwise(found[:4]))
    assert found[5].dtype == torch.bfloat16
    assert not torch.equal(found[4], found[6])


def test_an_autoencoder_that_trains_gets_the_gradient_of_every_chunk(vae: CausalVAEModel) -> None:
    vae.requires_grad_(True)
    gradients = []
    for given in (None, (0,)):
        vae.zero_grad()
        vae.encode(place_frames(_images((0,)), (0,), 25), given=given).mean.square().sum().backward()
        gradients.append([parameter.grad.clone() for parameter in vae.encoder.parameters()])
    assert all(map(torch.equal, *gradients))


def test_the_number_of_known_chunks_is_limited(vae: CausalVAEModel) -> None:
    with torch.no_grad():
        for frames in range(1, 26):
            vae.tile_sample_min_size_t = frames + 1
            vae.encode(torch.zeros(1, 3, frames + 1, 40, 32), given=())
    assert len(vae._grey_chunks._chunks) == 16
