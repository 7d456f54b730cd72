"""Time and memory of the video model, compared with what the machine can do.

Run with the opensora environment's interpreter: `python -m benchmarks.opensora [--json FILE]`.

1. The transformer at 1/8 width (3 heads of 96 instead of 24) and 4,096 tokens: forward, and forward with backward,
  compared with the time of its floating-point operations at the matmul rate measured in the same run.
2. Other ways to write its attention, and where the time goes (a profile by operator).
3. Peak memory of the autoencoder at its published width for clips of growing length, tiled and untiled.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from mora_env_opensora import published
from mora_env_opensora.models import CausalVAEModel, OpenSoraT2V
from torch import Tensor
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

HEADS, HEAD_DIM, CAPTION_CHANNELS, TEXT_ROWS = 3, 96, 512, 512
LATENT_GRID = (8, 32, 64)  # latent frames, height, width: 8 x 16 x 32 = 4,096 tokens


@dataclass(frozen=True)
class Rate:
    """A piece of work, compared with the least time that the measured matmul rate allows."""

    work: str
    seconds: float
    gflop: float
    share_of_matmul_rate: float


def forward_flop(layers: int, tokens: int, text_rows: int, width: int) -> int:
    """Multiply-adds count as two. Only matmuls count, so norms, GELU, rotary and modulation are left out."""
    self_attention = 8 * tokens * width**2 + 4 * tokens**2 * width  # q, k, v, out; scores and mixing
    cross_attention = 4 * tokens * width**2 + 4 * text_rows * width**2 + 4 * tokens * text_rows * width
    feed_forward = 16 * tokens * width**2
    caption = 2 * text_rows * (CAPTION_CHANNELS * width + width**2)
    return layers * (self_attention + cross_attention + feed_forward) + caption


def best_seconds(work: Callable[[], object], repeats: int) -> float:
    """The fastest of several runs: what the machine can do without other load.

    One thread is measured in processor time, which leaves out the time that other processes had the core.
    """
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    times = []
    for _ in range(repeats):
        started_s = clock()
        work()
        times.append(clock() - started_s)
    return min(times)


def matmul_flops(repeats: int) -> float:
    """float32 FLOP/s of a 2048-cubed matrix product."""
    a, b = torch.randn(2, 2048, 2048)
    return 2 * 2048**3 / best_seconds(lambda: a @ b, repeats + 2)


def transformer_rates(layers: int, repeats: int, rate: float) -> tuple[list[Rate], list[dict[str, Any]]]:
    """Forward and forward + backward, and a profile of the forward."""
    width = HEADS * HEAD_DIM
    config = {"num_attention_heads": HEADS, "attention_head_dim": HEAD_DIM, "cross_attention_dim": width}
    model = OpenSoraT2V.from_config(config | {"num_layers": layers, "caption_channels": CAPTION_CHANNELS}).eval()
    frames, height, patches = LATENT_GRID
    latents = torch.randn(1, 4, frames, height, patches)
    text, mask = torch.randn(1, 1, TEXT_ROWS, CAPTION_CHANNELS), torch.ones(1, 1, TEXT_ROWS)

    def forward() -> Tensor:
        return model(latents, torch.tensor([500]), text, encoder_attention_mask=mask)

    def train() -> None:
        model.zero_grad()
        forward().square().mean().backward()

    tokens = frames * (height // 2) * (patches // 2)
    flop = forward_flop(layers, tokens, TEXT_ROWS, width)
    with torch.no_grad():
        forward_s = best_seconds(forward, repeats)
        table = operator_shares(forward)
    train_s = best_seconds(train, repeats)
    rates = [
        Rate(
            f"forward, {layers} layers, {tokens} tokens, width {width}", forward_s, flop / 1e9, flop / forward_s / rate
        ),
        Rate("forward + backward (3 x forward's FLOP)", train_s, 3 * flop / 1e9, 3 * flop / train_s / rate),
    ]
    return rates, table


def operator_shares(work: Callable[[], object]) -> list[dict[str, Any]]:
    """Operators by their own time, largest first."""
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        work()
    rows = sorted(recorded.key_averages(), key=lambda row: row.self_cpu_time_total, reverse=True)
    total = sum(row.self_cpu_time_total for row in rows)
    return [{"operator": row.key, "share": row.self_cpu_time_total / total} for row in rows[:6]]


def attention_ways(repeats: int, rate: float) -> list[Rate]:
    """Ways to compute the self-attention, the chosen one first."""
    tokens, width = 4096, HEADS * HEAD_DIM
    query, key, value = torch.randn(3, 1, HEADS, tokens, HEAD_DIM)
    flop = 4 * tokens**2 * width
    square = torch.zeros(1, 1, tokens, tokens)
    compiled = torch.compile(_written_out)

    ways: dict[str, Callable[[], Tensor]] = {
        "scaled_dot_product_attention without a mask (chosen)": lambda: F.scaled_dot_product_attention(
            query, key, value
        ),
        "the same with a mask of the full square": lambda: F.scaled_dot_product_attention(
            query, key, value, attn_mask=square
        ),
        "scores, softmax and mixing written out": lambda: _written_out(query, key, value),
        "written out, torch.compile": lambda: compiled(query, key, value),
    }
    rates = []
    with torch.no_grad():
        for name, way in ways.items():
            way()
            seconds = best_seconds(way, repeats)
            rates.append(Rate(name, seconds, flop / 1e9, flop / seconds / rate))
    return rates


def _written_out(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    scores = (query @ key.transpose(-1, -2)) * query.shape[-1] ** -0.5
    return scores.softmax(-1) @ value


@dataclass(frozen=True)
class VaeMemory:
    """Peak above the idle process: in bytes, and in float32s per pixel of the tile (or clip) and channel of level 0."""

    work: str
    frames: int
    side: int
    tile: int | None
    tile_frames: int | None
    peak_nbytes: int
    floats_per_pixel_channel: float


def vae_memory() -> list[VaeMemory]:
    """Measure each case in a fresh process, because the peak of a process never falls."""
    cases = [
        ("encode", 17, 96, None, None),
        ("decode", 17, 64, None, None),
        ("decode", 17, 96, None, None),
        ("decode", 17, 96, 64, 9),
        ("decode", 33, 96, 64, 9),
    ]
    results = []
    for work, frames, side, tile, tile_frames in cases:
        arguments = [work, str(frames), str(side), str(tile or 0), str(tile_frames or 0)]
        command = [sys.executable, "-m", "benchmarks.opensora", "--vae-case", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=True)
        peak = int(done.stdout)
        pixels = (tile_frames or frames) * (tile or side) ** 2
        results.append(VaeMemory(work, frames, side, tile, tile_frames, peak, peak / (pixels * 128 * 4)))
        _print_memory(results[-1])
    return results


@torch.no_grad()
def vae_case(work: str, frames: int, side: int, tile: int, tile_frames: int) -> int:
    """Peak bytes above the memory of the process before the call."""
    with torch.device("meta"):
        vae = CausalVAEModel.from_config(published.VAE).eval().requires_grad_(False)
    vae.to_empty(device="cpu")
    for parameter in vae.parameters():
        parameter.zero_()  # memory does not depend on the weights, and random weights take seconds to make
    if tile:
        vae.enable_tiling()
        vae.tile_sample_min_size, vae.tile_latent_min_size = tile, tile // 8
        vae.tile_sample_min_size_t, vae.tile_latent_min_size_t = tile_frames, (tile_frames - 1) // 4 + 1
        vae.tile_overlap_factor = 0.25
    before = _peak_nbytes()
    if work == "encode":
        vae.encode(torch.zeros(1, 3, frames, side, side))
    else:
        vae.decode(torch.zeros(1, 4, (frames - 1) // 4 + 1, side // 8, side // 8))
    return _peak_nbytes() - before


def _peak_nbytes() -> int:
    """Highest resident size of this process so far (Linux)."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:"))


def _print_rates(rows: list[Rate]) -> None:
    for row in rows:
        share = f"{row.share_of_matmul_rate:.0%} of the matmul rate"
        print(f"{row.work}: {row.seconds:.3f} s for {row.gflop:.1f} GFLOP, {share}", flush=True)


def _print_memory(case: VaeMemory) -> None:
    piece = "tile" if case.tile else "clip"
    tiles = f"tiles {case.tile_frames}x{case.tile}x{case.tile}" if case.tile else "untiled"
    print(
        f"{case.work} {case.frames}x{case.side}x{case.side}, {tiles}: peak {case.peak_nbytes / 2**20:.0f} MiB = "
        f"{case.floats_per_pixel_channel:.1f} floats per pixel of the {piece} and channel",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="also write all figures to this file")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--layers", type=int, default=4, help="layers of the transformer; the published one has 32")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--vae-case", nargs=5, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.vae_case:
        work, *numbers = arguments.vae_case
        print(vae_case(work, *map(int, numbers)))
        return
    rate = matmul_flops(arguments.repeats)
    print(f"float32 matmul: {rate / 1e9:.1f} GFLOP/s on {arguments.threads} thread(s)", flush=True)
    rates, table = transformer_rates(arguments.layers, arguments.repeats, rate)
    # Other load on the machine changes the rate. The better of before and after gives the smaller, safer share.
    again = matmul_flops(arguments.repeats)
    rates = [replace(row, share_of_matmul_rate=row.share_of_matmul_rate * rate / max(rate, again)) for row in rates]
    rate = max(rate, again)
    print(f"float32 matmul, the better of before and after: {rate / 1e9:.1f} GFLOP/s")
    _print_rates(rates)
    for entry in table:
        print(f"  {entry['share']:.1%} {entry['operator']}")
    ways = attention_ways(arguments.repeats, rate)
    _print_rates(ways)
    memory = vae_memory()
    if arguments.json:
        figures = {"matmul_gflops": rate / 1e9, "threads": arguments.threads, "profile": table}
        figures |= {"transformer": list(map(asdict, rates)), "attention": list(map(asdict, ways))}
        arguments.json.write_text(json.dumps(figures | {"vae": list(map(asdict, memory))}, indent=1) + "\n")


if __name__ == "__main__":
    main()
