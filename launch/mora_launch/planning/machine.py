"""The GPUs for which a job is planned: those of this machine, or assumed ones where it has none."""

from __future__ import annotations

from dataclasses import dataclass

from mora_launch.jobs.cuda_driver import CudaDriver
from mora_launch.planning.gpu_rates import ASSUMED, GpuRates, gpu_named, rates_of


@dataclass(frozen=True)
class PlannedGpu:
    """One device `cuda:N` of a plan."""

    device: str
    name: str
    nbytes: int
    rates: GpuRates | None  # None = this kind of GPU is unknown, so no times are planned
    is_assumed: bool


def planned_gpu(device: str, driver: CudaDriver, assumed: str | None) -> PlannedGpu:
    """Return the GPU of this name, `cuda:N`.

    Args:
        assumed: name of the GPU to plan for, in place of the machine's; None takes the machine's, or an H100.

    Raises:
        SettingsError: `assumed` is not a known GPU.
    """
    index = int(device.partition(":")[2])
    if assumed is None and index < len(driver.gpus):
        gpu = driver.gpus[index]
        return PlannedGpu(device, gpu.name, gpu.nbytes, rates_of(gpu.name), is_assumed=False)
    rates = ASSUMED if assumed is None else gpu_named(assumed)
    return PlannedGpu(device, rates.name, rates.nbytes, rates, is_assumed=True)
