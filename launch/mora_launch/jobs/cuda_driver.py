"""What the NVIDIA driver says about this machine, asked through libcuda, so that no torch is needed.

`python cuda_driver.py` prints the answer as JSON. `ask_driver` runs that in a process of its own, because a broken GPU
can make the driver wait for ever, and because the launcher should not keep devices open. The driver counts only the
devices that CUDA_VISIBLE_DEVICES leaves visible, whether it names them by number or by UUID.
"""

from __future__ import annotations

import ctypes
import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_LIBRARY = "libcuda.so.1"
_DEADLINE_S = 60.0  # a node of eight GPUs without a persistence daemon takes 20 s
_ORDER = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}  # as `child_variables` tells the roles
_NO_DEVICE = 100  # CUDA_ERROR_NO_DEVICE
_NAME_NBYTES = 256


@dataclass(frozen=True)
class Gpu:
    """One visible GPU; its place in `CudaDriver.gpus` is the N of `cuda:N`."""

    name: str
    nbytes: int
    pci_bus_id: str  # 0000:1B:00.0


@dataclass(frozen=True)
class CudaDriver:
    """The driver of this machine and the GPUs that it shows.

    Attributes:
        version: of the newest CUDA that it supports, 1000 * major + 10 * minor; 0 if there is no driver.
        problem: why there are no GPUs; empty if there are some.
    """

    version: int
    gpus: tuple[Gpu, ...]
    problem: str = ""

    @property
    def cuda(self) -> str:
        """The newest CUDA that the driver supports, such as 13.0."""
        return f"{self.version // 1000}.{self.version % 1000 // 10}"

    def problem_of(self, device: str, distributions: Mapping[str, str]) -> str | None:
        """Say why torch cannot use a device, or return None.

        Args:
            device: cuda:N.
            distributions: versions of what is installed in the environment that would use it, by name.
        """
        index = int(device.partition(":")[2])
        if index >= len(self.gpus):
            why = f" ({self.problem})" if self.problem else ""
            return (
                f"this machine has {len(self.gpus)} CUDA device(s){_hidden()}{why}; change agents.*.devices or "
                "replicas, or run on a larger machine"
            )
        torch = distributions.get("torch", "")
        if torch.endswith("+cpu"):
            return f"its environment has torch {torch}, which was built without CUDA: build the environment again here"
        needed = cuda_major(distributions)
        if needed is not None and self.version // 1000 < needed:
            return (
                f"its environment has torch {torch} for CUDA {needed}, but the driver supports at most CUDA "
                f"{self.cuda}: install a newer driver{_DRIVER_OF.get(needed, '')}"
            )
        return None


_DRIVER_OF = {12: " (525 or later)", 13: " (580 or later)"}


def _hidden() -> str:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return "" if visible is None else f" with CUDA_VISIBLE_DEVICES={visible}"


def cuda_major(distributions: Mapping[str, str]) -> int | None:
    """Return the major version of the CUDA that an environment's torch needs; None if nothing tells it."""
    _, _, build = distributions.get("torch", "").partition("+cu")
    if build.isdigit():
        return int(build[:2])
    for name in ("nvidia-cuda-runtime", "nvidia-cuda-runtime-cu13", "nvidia-cuda-runtime-cu12"):
        major = distributions.get(name, "").partition(".")[0]
        if major.isdigit():
            return int(major)
    return None


def ask_driver() -> CudaDriver:
    """Ask the driver in a process of its own. No driver, a broken one and no GPU are answers too, with the reason."""
    try:
        done = subprocess.run(
            [sys.executable, "-I", __file__], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True,
            timeout=_DEADLINE_S, env=os.environ | _ORDER,
        )  # fmt: skip
        told = json.loads(done.stdout)
        return CudaDriver(told["version"], tuple(Gpu(**gpu) for gpu in told["gpus"]), told["problem"])
    except subprocess.TimeoutExpired:
        return CudaDriver(0, (), f"the NVIDIA driver gave no answer within {_DEADLINE_S:.0f} s; see dmesg")
    except (OSError, subprocess.CalledProcessError, ValueError, KeyError, TypeError) as error:
        return CudaDriver(0, (), f"the NVIDIA driver cannot be asked: {type(error).__name__}: {error}")


class _CudaError(Exception):
    """A function of libcuda failed."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class _Library:
    """The few functions of libcuda that are needed; each returns an error code and writes its result."""

    def __init__(self, library: Any) -> None:
        self._library = library

    def call(self, name: str, *arguments: Any) -> None:
        code = getattr(self._library, name)(*arguments)
        if code != 0:
            text = ctypes.c_char_p()
            self._library.cuGetErrorString(code, ctypes.byref(text))
            shown = (text.value or b"unknown error").decode(errors="replace")
            raise _CudaError(code, f"{name}: {shown} (CUDA error {code})")

    def integer(self, name: str, *arguments: Any) -> int:
        value = ctypes.c_int()
        self.call(name, ctypes.byref(value), *arguments)
        return value.value

    def size(self, name: str, *arguments: Any) -> int:
        value = ctypes.c_size_t()
        self.call(name, ctypes.byref(value), *arguments)
        return value.value

    def text(self, name: str, device: int) -> str:
        buffer = ctypes.create_string_buffer(_NAME_NBYTES)
        self.call(name, buffer, _NAME_NBYTES, device)
        return buffer.value.decode(errors="replace")


def read_driver(library: Any) -> CudaDriver:
    """Ask a loaded libcuda for its version and its visible devices."""
    cuda = _Library(library)
    version = 0
    try:
        version = cuda.integer("cuDriverGetVersion")
        cuda.call("cuInit", 0)
        devices = [cuda.integer("cuDeviceGet", index) for index in range(cuda.integer("cuDeviceGetCount"))]
        gpus = tuple(
            Gpu(
                cuda.text("cuDeviceGetName", device),
                cuda.size("cuDeviceTotalMem_v2", device),
                cuda.text("cuDeviceGetPCIBusId", device),
            )
            for device in devices
        )
    except _CudaError as error:
        return CudaDriver(version, (), "the driver shows no GPU" if error.code == _NO_DEVICE else str(error))
    return CudaDriver(version, gpus, "" if gpus else "the driver shows no GPU")


def main() -> None:
    """Print the driver's answer as JSON."""
    try:
        library = ctypes.CDLL(_LIBRARY)
    except OSError as error:
        answer = CudaDriver(0, (), f"no NVIDIA driver: {error}")
    else:
        answer = read_driver(library)
    print(json.dumps(dataclasses.asdict(answer)))


if __name__ == "__main__":
    main()
