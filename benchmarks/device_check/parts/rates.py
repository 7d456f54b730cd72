"""How fast the device is: copies, matrices, attention by kernel, a tile of the video autoencoder, small operations.

The rates have the names of `GpuRates`, whose assumed values the check prints next to them. In a dry run the sizes are
small, and the rates say nothing.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from mora_env_opensora import published
from mora_env_opensora.__main__ import KINDS
from mora_env_opensora.models import CausalVAEModel
from mora_env_opensora.options import OpenSoraOptions
from mora_env_opensora.sized_models import config_of
from mora_runtime.schema import read_settings
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.device_check.figures import Figures
from benchmarks.device_check.request import Request
from benchmarks.device_check.seconds import median_s

MB = 1 << 20
_NVIDIA_SMI_S = 20.0
_BACKENDS = ("cudnn", "flash", "efficient")  # the math kernel would need 40 GB for the scores


@dataclass(frozen=True)
class Sizes:
    """The sizes of what is measured."""

    copy_nbytes: int = 1024 * MB
    host_copy_nbytes: int = 256 * MB
    matrix: int = 8192
    attention: tuple[int, int, int, int] = (1, 24, 28_800, 96)  # of the published video transformer
    tile_frames: int = 33
    tile_side: int = 256
    num_launches: int = 2000


_TINY = Sizes(4 * MB, MB, 256, (1, 2, 256, 32), 5, 32, 100)


def run(request: Request, figures: Figures) -> None:
    """Measure, the most important first."""
    sizes = _TINY if request.is_dry else Sizes()
    device = request.torch_device
    figures.add(**versions(device))
    by_kernel = {name: rates for name, rates in _attention(sizes, device)}
    figures.add(attention_by_kernel=by_kernel, attention_default=_default_kernel(sizes, device))
    rates: dict[str, float] = {}
    chosen = next(
        (by_kernel[name] for name in request.kernels["attention"] if "forward" in by_kernel.get(name, {})), None
    )
    if chosen is not None:
        rates |= {"attention": chosen["forward"], "attention_backward": chosen["backward"]}
    for name, dtype in (("matmul", torch.bfloat16), ("matmul_float32", torch.float32)):
        rates[name] = _matmul(sizes.matrix, dtype, device)
        figures.add(rates=rates)
    rates |= {"memory": _copy(sizes.copy_nbytes, device), "launch_s": _launch_s(sizes.num_launches, device)}
    figures.add(rates=rates, host_copies=_host_copies(sizes.host_copy_nbytes, device))
    options = read_settings(KINDS["opensora"].options, request.options, source="the video agent's options")
    tiles = _tiles(options, sizes, device)
    rates |= {"convolution": tiles["bfloat16, benchmark"], "convolution_float32": tiles["tf32, benchmark"]}
    figures.add(rates=rates, encoder_tile=tiles)


def versions(device: torch.device) -> dict[str, Any]:
    """Versions, and what the device is."""
    told: dict[str, Any] = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "device": "cpu",
    }
    if device.type == "cuda":
        about = torch.cuda.get_device_properties(device)
        told |= {"device": about.name, "device_nbytes": about.total_memory, "driver": _driver()}
    return told


def _driver() -> str | None:
    """The version of the NVIDIA driver, as nvidia-smi tells it; None if it is not there."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    command = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_NVIDIA_SMI_S, check=True)
    except (subprocess.SubprocessError, OSError) as error:
        return f"unknown: {error}"
    return done.stdout.strip().splitlines()[0]


def _attention(sizes: Sizes, device: torch.device) -> Iterator[tuple[str, dict[str, Any]]]:
    """Operations per second of both passes by kernel, or why a kernel cannot run."""
    batch, heads, length, width = sizes.attention
    query, key, value = (
        torch.randn(sizes.attention, device=device, dtype=torch.bfloat16, requires_grad=True) for _ in range(3)
    )
    forward_work = 4 * batch * heads * length * length * width
    for name in _BACKENDS:
        backend = getattr(SDPBackend, f"{name.upper()}_ATTENTION", None)
        if backend is None:
            yield name, {"unavailable": f"torch {torch.__version__} does not have it"}
            continue
        try:
            with sdpa_kernel([backend]):
                forward = partial(scaled_dot_product_attention, query, key, value)
                forward_s = median_s(device, forward, rounds=3)
                mixed = forward()
                inputs, gradient = (query, key, value), torch.ones_like(mixed)
                backward = partial(torch.autograd.grad, mixed, inputs, gradient, retain_graph=True)
                backward_s = median_s(device, backward, rounds=3)
        except RuntimeError as error:
            yield name, {"unavailable": str(error).splitlines()[0]}
            continue
        # five products of the forward's size / 2 each, as torch's counter of operations has it
        yield name, {"forward": forward_work / forward_s, "backward": 2.5 * forward_work / backward_s}


def _default_kernel(sizes: Sizes, device: torch.device) -> str | None:
    """The kernel that torch chooses itself for these sizes; None if this version does not tell."""
    choose = getattr(torch, "_fused_sdp_choice", None)
    if choose is None:
        return None
    query = torch.empty(sizes.attention, device=device, dtype=torch.bfloat16, requires_grad=True)
    known = {int(each): name for name, each in SDPBackend.__members__.items()}
    return known.get(int(choose(query, query, query)))


def _matmul(size: int, dtype: torch.dtype, device: torch.device) -> float:
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    return 2 * size**3 / median_s(device, lambda: left @ right, rounds=5, warm_up=3)


def _copy(nbytes: int, device: torch.device) -> float:
    """Bytes per second, read and written."""
    source = torch.zeros(nbytes, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * nbytes / median_s(device, lambda: target.copy_(source), rounds=5, warm_up=2)


def _host_copies(nbytes: int, device: torch.device) -> dict[str, float]:
    """Bytes per second between host and device; pinned memory only where there is a GPU."""
    on_device = torch.zeros(nbytes, dtype=torch.uint8, device=device)
    rates = {}
    for kind in ("pageable", "pinned") if device.type == "cuda" else ("pageable",):
        on_host = torch.zeros(nbytes, dtype=torch.uint8, pin_memory=kind == "pinned")
        rates[f"to_device_{kind}"] = nbytes / median_s(device, partial(on_device.copy_, on_host), rounds=3)
        rates[f"to_host_{kind}"] = nbytes / median_s(device, partial(on_host.copy_, on_device), rounds=3)
    return rates


def _launch_s(num_launches: int, device: torch.device) -> float:
    """Seconds of one small operation in a row of many."""
    number = torch.zeros(16, device=device)

    def launch_all() -> None:
        for _ in range(num_launches):
            number.add_(1.0)

    return median_s(device, launch_all, rounds=3) / num_launches


def _tiles(options: OpenSoraOptions, sizes: Sizes, device: torch.device) -> dict[str, float]:
    """Operations per second of the encoder on one tile, by number format and choice of algorithms."""
    with device:
        vae = CausalVAEModel.from_config(config_of(options.vae, published.VAE)).eval().requires_grad_(False)
    clip = torch.randn(1, 3, sizes.tile_frames, sizes.tile_side, sizes.tile_side, device=device)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        vae.encoder(clip)
    work = counter.get_total_flops()
    rates: dict[str, float] = {}
    flags = torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32
    try:
        for name, dtype in (("float32", torch.float32), ("tf32", torch.float32), ("bfloat16", torch.bfloat16)):
            torch.backends.cudnn.allow_tf32 = name == "tf32"
            encode, tile = vae.to(dtype).encoder, clip.to(dtype)
            for suffix, torch.backends.cudnn.benchmark in (("", False), (", benchmark", True)):
                with torch.no_grad():
                    rates[name + suffix] = work / median_s(device, partial(encode, tile), rounds=2)
    finally:
        torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32 = flags
    return rates
