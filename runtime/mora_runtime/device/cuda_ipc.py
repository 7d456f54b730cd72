"""All calls of CUDA's inter-process API, each with its error checked.

Used by `device_pool` and `pinned_staging`, which decide which process may use which bytes when. Handles are the CUDA
runtime's, through `cuda-bindings`; torch's own inter-process code is not used, so each end may have another torch
version. `cuda-bindings` is imported on first use: machines without CUDA never need it.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import time
from collections.abc import Iterator
from typing import Any

import torch

from mora_runtime.device.ipc_device import Event, Route
from mora_runtime.errors import BoundsError, DeviceFailed, DeviceUnavailable
from mora_runtime.limits import DEVICE_SPIN_S
from mora_runtime.wire.device_tensor import HANDLE_NBYTES

_LAST_PAUSE_S = 1e-3
_NOT_READY = 600  # cudaErrorNotReady


def why_unavailable() -> str | None:
    """Why this process cannot share device memory, or None if it can. Creates no CUDA context."""
    if not torch.cuda.is_available():
        return f"torch {torch.__version__} finds no CUDA device here"
    try:
        from cuda.bindings import driver, runtime  # noqa: F401
    except ImportError as error:
        return f"cuda-bindings cannot be imported ({error}); install it in the environment of torch"
    return None


@functools.cache
def _bindings() -> tuple[Any, Any]:
    """The bindings of CUDA's driver and runtime, after torch has initialised CUDA."""
    reason = why_unavailable()
    if reason is not None:
        raise DeviceUnavailable(f"{reason}; tensors go through host memory")
    from cuda.bindings import driver, runtime

    torch.cuda.init()  # type: ignore[no-untyped-call]
    return driver, runtime


def _call(function: Any, *arguments: Any) -> Any:
    error, *values = function(*arguments)
    if int(error):
        raise DeviceFailed(f"{function.__name__} answered {error.name}")
    return values[0] if len(values) == 1 else values


# Handles are read and written through memory, because versions of the bindings differ in how they expose the bytes.
def _bytes_of(handle: Any) -> bytes:
    return ctypes.string_at(handle.getPtr(), HANDLE_NBYTES)


def _handle_from(handle: Any, data: bytes) -> Any:
    if len(data) != HANDLE_NBYTES:
        raise BoundsError(f"a handle of {len(data)} bytes, expected {HANDLE_NBYTES}")
    ctypes.memmove(handle.getPtr(), data, HANDLE_NBYTES)
    return handle


class Device:
    """A CUDA device of this process. Addresses and streams are plain integers.

    Args:
        ordinal: its number in this process, as in `cuda:1`.

    Raises:
        DeviceUnavailable: no CUDA device, no cuda-bindings, or a device that cannot share its memory.

    Every method raises DeviceFailed if a CUDA call fails.
    """

    def __init__(self, ordinal: int) -> None:
        self.ordinal = ordinal
        self._driver, self._runtime = _bindings()
        shares = self._runtime.cudaDeviceAttr.cudaDevAttrIpcEventSupport
        if not _call(self._runtime.cudaDeviceGetAttribute, shares, ordinal):
            raise DeviceUnavailable(f"cuda:{ordinal} has no inter-process events; tensors go through host memory")
        self.torch_device = torch.device("cuda", ordinal)
        self.uuid = self._uuid(ordinal)

    def _uuid(self, ordinal: int) -> bytes:
        return bytes(_call(self._runtime.cudaGetDeviceProperties, ordinal).uuid.bytes)

    @contextlib.contextmanager
    def _current(self) -> Iterator[Any]:
        """Make the device current for torch and for the bindings, which link their own copy of the CUDA runtime."""
        with torch.cuda.device(self.ordinal):
            _call(self._runtime.cudaSetDevice, self.ordinal)
            yield self._runtime

    def stream(self) -> int:
        """Torch's current stream on this device."""
        return torch.cuda.current_stream(self.ordinal).cuda_stream

    def route(self, uuid: bytes) -> Route:
        """How tensors reach this device from the one with `uuid`; ordinals differ between processes."""
        for other in range(_call(self._runtime.cudaGetDeviceCount)):
            if self._uuid(other) == uuid:
                if other == self.ordinal:
                    return "same device"
                reaches = _call(self._runtime.cudaDeviceCanAccessPeer, self.ordinal, other)
                return "peer device" if reaches else "host memory"
        return "host memory"  # that device is hidden from this process

    def allocate(self, nbytes: int) -> int:
        """Allocate memory that can be shared and return its address; `nbytes` must be a multiple of 2 MiB."""
        with self._current() as runtime:
            address = int(_call(runtime.cudaMalloc, nbytes))
            try:
                self._check_allocation(address, nbytes)
            except BaseException:
                self.free(address)
                raise
            return address

    def _check_allocation(self, address: int, nbytes: int) -> None:
        """BoundsError unless `address` starts an allocation of `nbytes`, according to the driver, not the peer."""
        start, real_nbytes = _call(self._driver.cuMemGetAddressRange, address)
        if int(start) != address or real_nbytes < nbytes:
            raise BoundsError(
                f"memory for a device pool of {nbytes} bytes is not a separate allocation: its allocation has "
                f"{real_nbytes} bytes and starts {address - int(start)} bytes earlier"
            )

    def free(self, address: int) -> None:
        """Free memory; peers must have closed it before."""
        with self._current() as runtime:
            _call(runtime.cudaFree, address)

    def memory_handle(self, address: int) -> bytes:
        """Return the 64 bytes with which another process opens the memory."""
        with self._current() as runtime:
            return _bytes_of(_call(runtime.cudaIpcGetMemHandle, address))

    def open_memory(self, handle: bytes, nbytes: int) -> int:
        """Map a peer's memory, on this device or one that this device reaches, and return its address here.

        It is mapped with this device current, so that no CUDA context is created on another device.

        Raises:
            BoundsError: the allocation is smaller than `nbytes`.
        """
        with self._current() as runtime:
            opened = _handle_from(runtime.cudaIpcMemHandle_t(), handle)
            address = int(_call(runtime.cudaIpcOpenMemHandle, opened, runtime.cudaIpcMemLazyEnablePeerAccess))
            try:
                self._check_allocation(address, nbytes)
            except BaseException:
                self.close_memory(address)
                raise
            return address

    def close_memory(self, address: int) -> None:
        """Unmap a peer's memory."""
        with self._current() as runtime:
            _call(runtime.cudaIpcCloseMemHandle, address)

    def new_event(self, *, shared: bool = False) -> Event:
        """Create an event without timing; peers can open a shared one."""
        with self._current() as runtime:
            flags = runtime.cudaEventDisableTiming | (runtime.cudaEventInterprocess if shared else 0)
            return _call(runtime.cudaEventCreateWithFlags, flags)

    def event_handle(self, event: Event) -> bytes:
        """Return the 64 bytes with which another process opens a shared event."""
        with self._current() as runtime:
            return _bytes_of(_call(runtime.cudaIpcGetEventHandle, event))

    def open_event(self, handle: bytes) -> Event:
        """Open a peer's event; call `destroy` on it when done."""
        with self._current() as runtime:
            return _call(runtime.cudaIpcOpenEventHandle, _handle_from(runtime.cudaIpcEventHandle_t(), handle))

    def destroy(self, event: Event) -> None:
        """Destroy an event."""
        with self._current() as runtime:
            _call(runtime.cudaEventDestroy, event)

    def record(self, event: Event, stream: int) -> None:
        """Record the event: it happens once the work queued on `stream` so far has run."""
        with self._current() as runtime:
            _call(runtime.cudaEventRecord, event, stream)

    def follow(self, stream: int, event: Event) -> None:
        """Make later work on `stream` wait for the event's latest record. Only for events of this process."""
        with self._current() as runtime:
            _call(runtime.cudaStreamWaitEvent, stream, event, 0)

    def wait(self, event: Event, deadline_s: float) -> Iterator[bool]:
        """Poll until the event has happened or the deadline has passed; yield each answer, at least one.

        Spins briefly, then sleeps between polls, so that a long wait blocks neither a core nor the interpreter.
        """
        began = time.monotonic()
        while not (happened := self.happened(event)):
            waited = time.monotonic() - began
            if waited >= deadline_s:
                break
            yield False
            if waited > DEVICE_SPIN_S:
                time.sleep(min(_LAST_PAUSE_S, waited / 4))
        yield happened

    def happened(self, event: Event) -> bool:
        """True once the work before the event's latest record has run."""
        with self._current() as runtime:
            (error,) = runtime.cudaEventQuery(event)
        if int(error) not in (0, _NOT_READY):
            raise DeviceFailed(f"cudaEventQuery answered {error.name}")
        return int(error) == 0

    def copy(self, destination: int, source: int, nbytes: int, stream: int) -> None:
        """Queue a copy between any two addresses that this process can use."""
        with self._current() as runtime:
            kind = runtime.cudaMemcpyKind.cudaMemcpyDefault
            _call(runtime.cudaMemcpyAsync, destination, source, nbytes, kind, stream)

    def pin(self, address: int, nbytes: int) -> None:
        """Page-lock host memory, so that copies to and from it run at the speed of the bus."""
        with self._current() as runtime:
            _call(runtime.cudaHostRegister, address, nbytes, runtime.cudaHostRegisterPortable)

    def unpin(self, address: int) -> None:
        """Undo `pin`."""
        with self._current() as runtime:
            _call(runtime.cudaHostUnregister, address)
