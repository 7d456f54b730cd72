"""What the condition costs in a training step of the video model: the autoencoder's encoding of the masked clip.

Run with the opensora environment's interpreter: `python -m benchmarks.vae_condition [--json FILE]`.

`whole clip` encodes every chunk of time with gradient and recomputes each tile and, inside it, each block: the
simplest code, and the reference of both comparisons. `given chunks` is what the objective does.

1. Floating-point operations of forward and backward at the published size and width, counted on the meta device, and
  what the graph keeps between them. `block checkpoints alone` and `tile and block checkpoints` are the alternatives to
  the tile checkpoints of `given chunks`.
2. Processor time of both at 1/8 width (1/4 in the first level, whose norms need 32 channels) on a clip of 93x64x64, cut
  into as many tiles as the published size: the condition alone, and loss and backward with a small transformer. Their
  gradients are compared.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from typing import Any

import torch
from mora_env_opensora import published
from mora_env_opensora.conditioning import ClipSize, masked_latents, place_frames
from mora_env_opensora.models import CausalVAEModel, OpenSoraInpaint
from mora_env_opensora.models.vae import DiagonalGaussian
from mora_env_opensora.models.vae.tiling import TilePlan, run_tiled
from mora_env_opensora.objective import Target, VideoObjective
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.figures import add_json_option, publish

PUBLISHED = ClipSize(93, 480, 640)
SMALL = ClipSize(93, 64, 64)
_SMALL_VAE = published.VAE | {"hidden_size": 32, "hidden_size_mult": [1, 1, 2, 2]}
_SMALL_TRANSFORMER = {
    "num_layers": 2, "num_attention_heads": 3, "attention_head_dim": 96, "cross_attention_dim": 288,
    "caption_channels": 512, "sample_size": [8, 8], "sample_size_t": 24,
}  # fmt: skip
_NUM_TEXT_ROWS = 32


class WholeClipVAE(CausalVAEModel):
    """Encodes all of a clip with gradient. A tile's checkpoint and those of its blocks can be switched."""

    recomputes_tiles = True
    recomputes_blocks = True

    def encode(self, video: Tensor, *, given: Collection[int] | None = None) -> DiagonalGaussian:
        def encode_tile(pixels: Tensor) -> Tensor:
            return self._encode_tile(pixels, recompute_blocks=self.recomputes_blocks)

        def recomputed_tile(pixels: Tensor) -> Tensor:
            return checkpoint(encode_tile, pixels, use_reentrant=False, preserve_rng_state=False)

        plan = TilePlan(
            self.tile_sample_min_size, self.tile_latent_min_size, self.tile_sample_min_size_t, self.tile_overlap_factor
        )
        process = recomputed_tile if self.recomputes_tiles else encode_tile
        return DiagonalGaussian(torch.cat([run_tiled(process, sample, plan) for sample in video.split(1)]))


@dataclass(frozen=True)
class Operations:
    """TFLOP of one encoding, and GiB that its graph keeps until the backward."""

    way: str
    forward_tflop: float
    backward_tflop: float
    total_tflop: float
    kept_gib: float


class _Kept:
    """Bytes of the distinct storages that graphs save, parameters left out."""

    def __init__(self) -> None:
        self._storages: dict[int, Any] = {}

    def pack(self, saved: Tensor) -> Tensor:
        if not isinstance(saved, torch.nn.Parameter):
            storage = saved.untyped_storage()
            self._storages[storage._cdata] = storage  # kept, so that no other storage gets its number
        return saved

    @property
    def gib(self) -> float:
        return sum(storage.nbytes() for storage in self._storages.values()) / 2**30


def operations() -> list[Operations]:
    """Count every way at the published size."""
    with torch.device("meta"):
        whole, parts = WholeClipVAE.from_config(published.VAE), CausalVAEModel.from_config(published.VAE)
    for vae in (whole, parts):
        vae.requires_grad_(False)
        vae.enable_tiling()
        vae.enable_gradient_checkpointing()
    rows = [_counted("whole clip", whole, PUBLISHED.frames)]
    _counted("", parts, PUBLISHED.frames)  # the first encoding also makes the grey chunks
    rows.append(_counted("given chunks", parts, PUBLISHED.frames))
    first_chunk = parts.tile_sample_min_size_t
    rows.append(_counted("tile and block checkpoints, given chunks", whole, first_chunk))
    whole.recomputes_tiles = False
    rows.append(_counted("block checkpoints alone, given chunks", whole, first_chunk))
    return rows


def _counted(way: str, vae: CausalVAEModel, frames: int) -> Operations:
    image = torch.empty(1, 3, PUBLISHED.height, PUBLISHED.width, device="meta", requires_grad=True)
    kept = _Kept()
    with FlopCounterMode(display=False) as forward, saved_tensors_hooks(kept.pack, lambda saved: saved):
        moments = vae.encode(place_frames([image], [0], frames), given=[0]).mean
    with FlopCounterMode(display=False) as backward:
        moments.backward(torch.empty_like(moments))
    tflop = [count.get_total_flops() / 1e12 for count in (forward, backward)]
    return Operations(way, *tflop, sum(tflop), kept.gib)


@dataclass(frozen=True)
class Comparison:
    """Processor seconds of both ways, the fastest of several runs in turns, and the largest difference of gradients."""

    work: str
    whole_clip_s: float
    given_chunks_s: float
    ratio: float
    bit_identical: bool
    largest_difference: float


def compared(work: str, ways: list[Callable[[], list[Tensor]]], repeats: int) -> Comparison:
    """Compare two ways to compute the same results."""
    results: list[list[Tensor]] = [[], []]
    times_s: list[list[float]] = [[], []]
    for _ in range(repeats):
        for index, way in enumerate(ways):
            started_s = time.process_time()
            results[index] = way()
            times_s[index].append(time.process_time() - started_s)
    pairs = list(zip(*results, strict=True))
    whole_s, parts_s = map(min, times_s)
    return Comparison(
        work,
        whole_s,
        parts_s,
        whole_s / parts_s,
        all(torch.equal(*pair) for pair in pairs),
        max(float((one - other).abs().max()) for one, other in pairs),
    )


def small_autoencoders() -> list[CausalVAEModel]:
    """The reference and the product, with the same weights and 3 x 3 tiles for a clip of `SMALL`."""
    torch.manual_seed(0)
    whole = WholeClipVAE.from_config(_SMALL_VAE)
    parts = CausalVAEModel.from_config(_SMALL_VAE)
    parts.load_state_dict(whole.state_dict())
    for vae in (whole, parts):
        vae.eval().requires_grad_(False)
        vae.enable_tiling()
        vae.enable_gradient_checkpointing()
        vae.tile_sample_min_size, vae.tile_latent_min_size, vae.tile_overlap_factor = 32, 4, 0.25
    return [whole, parts]


def condition_times(repeats: int) -> Comparison:
    """Encoding of the masked clip, and its gradient in the first frame."""
    image = torch.rand(1, 3, SMALL.height, SMALL.width) * 2 - 1
    noise, weights = torch.randn(2, 1, *SMALL.latent_shape)

    def way(vae: CausalVAEModel) -> list[Tensor]:
        leaf = image.clone().requires_grad_()
        latents = masked_latents(vae, place_frames([leaf], [0], SMALL.frames), noise, given=[0])
        return [latents.detach(), *torch.autograd.grad((latents * weights).sum(), leaf)]

    ways = [lambda vae=vae: way(vae) for vae in small_autoencoders()]
    return compared("condition: encoding and its backward", ways, repeats)


def step_times(repeats: int) -> Comparison:
    """The video part of a training step: loss and backward."""
    torch.manual_seed(1)
    model = OpenSoraInpaint.from_config(_SMALL_TRANSFORMER)
    for embed in (model.pos_embed_masked_video, model.pos_embed_mask):  # zero in a fresh model: no gradient would pass
        torch.nn.init.normal_(embed[1].weight, std=0.02)
    model.gradient_checkpointing = True
    width = model.config.caption_channels
    image, z = torch.rand(1, 3, SMALL.height, SMALL.width) * 2 - 1, torch.randn(4, width)
    text, target = torch.randn(_NUM_TEXT_ROWS, width), Target(*torch.rand(2, *SMALL.latent_shape))

    def way(vae: CausalVAEModel) -> list[Tensor]:
        model.zero_grad()
        leaves = [z.clone().requires_grad_(), image.clone().requires_grad_()]
        loss = VideoObjective(model, vae, SMALL).loss(leaves[0], [text], leaves[1], [target], [7])
        loss.backward()
        gradients = [leaf.grad for leaf in (*leaves, *model.parameters()) if leaf.grad is not None]
        return [loss.detach(), *(gradient.clone() for gradient in gradients)]

    ways = [lambda vae=vae: way(vae) for vae in small_autoencoders()]
    return compared("loss and backward, with a transformer of 2 layers", ways, repeats)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    add_json_option(parser)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    figures = {
        "published_size": [asdict(row) for row in operations()],
        "small": [asdict(measure(arguments.repeats)) for measure in (condition_times, step_times)],
    }
    publish(figures, arguments.json)


if __name__ == "__main__":
    main()
