"""How busy this process's GPU is, according to the driver's library (NVML); used only by `trace_writer`."""

from __future__ import annotations

import ctypes

import torch

_OK = 0


class _Utilization(ctypes.Structure):
    _fields_ = (("gpu", ctypes.c_uint), ("memory", ctypes.c_uint))  # per cent of the last sampling period


class GpuGauge:
    """Use of the GPU on which this process has the most memory; the GPU is chosen at the first sample after its use."""

    def __init__(self) -> None:
        self._device: int | None = None
        self._library: ctypes.CDLL | None = None
        self._handle = ctypes.c_void_p()

    def sample(self) -> dict[str, float]:
        """Return `busy` (share of time in which a kernel ran) and `allocated_nbytes` (by torch); empty without a GPU.

        Only memory if the driver's library gives no answer.
        """
        if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]  # any other query would create a context
            return {}
        if self._device is None:
            self._device = max(range(torch.cuda.device_count()), key=torch.cuda.memory_allocated)
            self._open(f"GPU-{torch.cuda.get_device_properties(self._device).uuid}")
        memory = {"allocated_nbytes": float(torch.cuda.memory_allocated(self._device))}
        use = _Utilization()
        if self._library is None or self._library.nvmlDeviceGetUtilizationRates(self._handle, ctypes.byref(use)) != _OK:
            return memory
        return {"busy": use.gpu / 100, **memory}

    def _open(self, uuid: str) -> None:
        try:
            library = ctypes.CDLL("libnvidia-ml.so.1")
        except OSError:
            return  # no driver library in this container: report memory only
        if (
            library.nvmlInit_v2() == _OK
            and library.nvmlDeviceGetHandleByUUID(uuid.encode(), ctypes.byref(self._handle)) == _OK
        ):
            self._library = library
