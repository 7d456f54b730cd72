"""A device without a GPU, to test the bookkeeping of pools: its memory is shared host memory, tests run its streams.

Streams are queues whose work runs at once unless the stream is held. Other processes can open memory and events
through their bytes, as with CUDA.
"""

import ctypes
import mmap
import os
import struct
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator

import torch
from mora_runtime.device.cuda_ipc import Route
from mora_runtime.errors import BoundsError, DeviceFailed
from mora_runtime.wire.device_tensor import HANDLE_NBYTES

_HANDLE = struct.Struct("!QQQ")  # pid, descriptor, nbytes
_COUNTS = struct.Struct("QQ")  # records queued, records that have run


class FakeEvent:
    """Counts its records in shared memory."""

    def __init__(self, page: mmap.mmap, handle: bytes, descriptor: int | None = None) -> None:
        self.page = page
        self.handle = handle
        self.descriptor = descriptor  # None in a process that has opened it
        self.is_alive = True

    @property
    def counts(self) -> tuple[int, int]:
        return _COUNTS.unpack_from(self.page)

    def add_record(self) -> int:
        queued, run = self.counts
        _COUNTS.pack_into(self.page, 0, queued + 1, run)
        return queued + 1

    def has_run(self, record: int) -> None:
        queued, run = self.counts
        _COUNTS.pack_into(self.page, 0, queued, max(run, record))


class FakeDevice:
    """Stands in for `cuda_ipc.Device` in pools."""

    def __init__(self, uuid: bytes = b"fake device 0000", way: Route = "same device") -> None:
        self.torch_device = torch.device("cpu")
        self.uuid = uuid
        self.way = way
        self.current_stream = 7
        self.held: set[int] = set()  # streams that do not run
        self.num_allocated = 0
        self.num_opened = 0
        self.num_events = 0  # alive, own and opened
        self.num_copied = 0
        self.pinned: set[int] = set()
        self._queues: dict[int, deque[Callable[[], bool]]] = defaultdict(deque)
        self._memory: dict[int, tuple[mmap.mmap, bytes, int | None]] = {}  # descriptor: of own memory

    # streams
    def stream(self) -> int:
        return self.current_stream

    def queue(self, stream: int, work: Callable[[], bool]) -> None:
        """Queue work; if it returns False it runs again later."""
        self._queues[stream].append(work)
        self.run()

    def hold(self, stream: int) -> None:
        self.held.add(stream)

    def let_run(self, stream: int) -> None:
        self.held.discard(stream)
        self.run()

    def run(self) -> None:
        moved = True
        while moved:
            moved = False
            for stream, queue in self._queues.items():
                while stream not in self.held and queue and queue[0]():
                    queue.popleft()
                    moved = True

    # memory
    def allocate(self, nbytes: int) -> int:
        made, handle, descriptor = self._shared(nbytes)
        self.num_allocated += 1
        return self._keep(made, handle, descriptor)

    def _shared(self, nbytes: int) -> tuple[mmap.mmap, bytes, int]:
        descriptor = os.memfd_create("fake")
        os.truncate(descriptor, nbytes)
        handle = _HANDLE.pack(os.getpid(), descriptor, nbytes).ljust(HANDLE_NBYTES, b"\0")
        return mmap.mmap(descriptor, nbytes), handle, descriptor

    def _keep(self, made: mmap.mmap, handle: bytes, descriptor: int | None) -> int:
        address = ctypes.addressof(ctypes.c_char.from_buffer(made))
        self._memory[address] = (made, handle, descriptor)
        return address

    def _open(self, handle: bytes) -> tuple[mmap.mmap, int]:
        pid, descriptor, nbytes = _HANDLE.unpack_from(handle)
        try:
            with open(f"/proc/{pid}/fd/{descriptor}", "r+b") as file:
                return mmap.mmap(file.fileno(), nbytes), nbytes
        except (OSError, ValueError, OverflowError):
            raise DeviceFailed("the fake answered invalid handle") from None

    def free(self, address: int) -> None:
        _, _, descriptor = self._memory.pop(address)
        assert descriptor is not None, "it is a peer's memory"
        os.close(descriptor)
        self.num_allocated -= 1

    def memory_handle(self, address: int) -> bytes:
        return self._memory[address][1]

    def open_memory(self, handle: bytes, nbytes: int) -> int:
        made, real_nbytes = self._open(handle)
        if real_nbytes < nbytes:
            raise BoundsError(f"{real_nbytes} bytes offered as {nbytes}")
        self.num_opened += 1
        return self._keep(made, handle, None)

    def close_memory(self, address: int) -> None:
        del self._memory[address]
        self.num_opened -= 1

    def route(self, uuid: bytes) -> Route:
        return self.way if uuid == self.uuid else "host memory"

    def copy(self, destination: int, source: int, nbytes: int, stream: int) -> None:
        self.num_copied += 1
        self.queue(stream, lambda: ctypes.memmove(destination, source, nbytes) is not None)

    def pin(self, address: int, nbytes: int) -> None:
        self.pinned.add(address)

    def unpin(self, address: int) -> None:
        self.pinned.remove(address)

    # events
    def new_event(self, *, shared: bool = False) -> FakeEvent:
        self.num_events += 1
        return FakeEvent(*self._shared(mmap.PAGESIZE))

    def event_handle(self, event: FakeEvent) -> bytes:
        return event.handle

    def open_event(self, handle: bytes) -> FakeEvent:
        made = FakeEvent(self._open(handle)[0], handle)
        self.num_events += 1
        return made

    def destroy(self, event: FakeEvent) -> None:
        assert event.is_alive, "destroyed twice"
        event.is_alive = False
        self.num_events -= 1
        if event.descriptor is not None:
            os.close(event.descriptor)

    def record(self, event: FakeEvent, stream: int) -> None:
        assert event.is_alive
        record = event.add_record()
        self.queue(stream, lambda: event.has_run(record) or True)

    def follow(self, stream: int, event: FakeEvent) -> None:
        assert event.is_alive
        record = event.counts[0]
        self.queue(stream, lambda: event.counts[1] >= record)

    def happened(self, event: FakeEvent) -> bool:
        assert event.is_alive
        queued, run = event.counts
        return run >= queued

    def wait(self, event: FakeEvent, deadline_s: float) -> Iterator[bool]:
        began = time.monotonic()
        while not (happened := self.happened(event)) and time.monotonic() - began < deadline_s:
            yield False
            time.sleep(1e-3)
        yield happened
