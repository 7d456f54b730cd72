"""What the plan assumes about GPUs: memory, and the rates that large kernels of these models reach."""

from __future__ import annotations

from dataclasses import dataclass

from mora_runtime.errors import SettingsError

_T = 1e12


@dataclass(frozen=True)
class GpuRates:
    """One kind of GPU. Rates are operations or bytes per second; a multiply-add counts as two operations.

    They are assumptions, lower than the vendor's peaks: `python3 -m benchmarks.device_check` measures them on a GPU.
    """

    name: str  # for `--gpu`
    device_name: str  # as the driver spells it, or its beginning
    nbytes: int  # as the driver tells
    matmul: float  # bfloat16
    matmul_float32: float  # without TF32
    attention: float  # bfloat16, forward
    attention_backward: float
    convolution: float  # bfloat16
    convolution_float32: float  # TF32, which torch uses for convolutions by default
    memory: float
    link: float  # between GPUs of one node, one direction
    launch_s: float = 8e-6  # of one operation of eager torch


GPUS = (
    GpuRates(
        "H100", "NVIDIA H100", int(79.1 * (1 << 30)), 600 * _T, 50 * _T, 330 * _T, 270 * _T, 300 * _T, 150 * _T,
        2.6 * _T, 0.3 * _T,
    ),
    GpuRates(
        "H200", "NVIDIA H200", int(139.8 * (1 << 30)), 600 * _T, 50 * _T, 330 * _T, 270 * _T, 300 * _T, 150 * _T,
        3.7 * _T, 0.3 * _T,
    ),
    GpuRates(
        "A100", "NVIDIA A100", int(79.1 * (1 << 30)), 240 * _T, 17 * _T, 170 * _T, 140 * _T, 120 * _T, 70 * _T,
        1.6 * _T, 0.2 * _T,
    ),
)  # fmt: skip
ASSUMED = GPUS[0]


def gpu_named(name: str) -> GpuRates:
    """Return the GPU of this name.

    Raises:
        SettingsError: there is none; the message lists all.
    """
    for gpu in GPUS:
        if gpu.name.lower() == name.lower():
            return gpu
    raise SettingsError(f"--gpu {name}: expected one of {', '.join(gpu.name for gpu in GPUS)}")


def rates_of(device_name: str) -> GpuRates | None:
    """Return the rates of a GPU by the name that the driver gives; None if nothing is known about it."""
    return next((gpu for gpu in GPUS if device_name.startswith(gpu.device_name)), None)
