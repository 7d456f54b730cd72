"""The second process of `benchmarks.cuda_ipc` and of the GPU tests: owns or reads device pools on request.

`DevicePeer` starts one and asks it over a Unix socket pair; `python -m benchmarks.device_peer DESCRIPTOR DEVICE` is the
peer itself. A request is one packet: a letter and packed fields; the docstring of each method of `_Peer` defines one.
An answer is `k` and packed fields, or `e` with an error's code and text. The first request that needs CUDA starts it.
"""

from __future__ import annotations

import json
import os
import select
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import torch
from mora_runtime.device import cuda_ipc
from mora_runtime.device.device_pool import DevicePool, OpenedPool
from mora_runtime.errors import DeviceFailed, MoraError, PeerDied, error_from_code
from mora_runtime.wire.device_tensor import DeviceOffer, DeviceTensor

ROOT = Path(__file__).resolve().parents[1]
MAX_PACKET_NBYTES = 64 << 10
CYCLES_PER_MS = 2_000_000  # a little more than the clock of any device
VIEW_DEADLINE_S = 20.0
NAME = "the peer"


class DevicePeer:
    """A handle on a peer process. Every question has a deadline; a peer that does not answer raises TimeoutError."""

    def __init__(self, ordinal: int = 0, python: str = sys.executable) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = [python, "-m", "benchmarks.device_peer", str(theirs.fileno()), str(ordinal)]
        self.process = subprocess.Popen(command, pass_fds=[theirs.fileno()], cwd=ROOT)
        theirs.close()

    @property
    def is_alive(self) -> bool:
        return self.process.poll() is None

    def send(self, request: bytes) -> None:
        """Ask without waiting; `receive` returns the answer."""
        self._socket.send(request)

    def receive(self, deadline_s: float = 60.0) -> bytes:
        """The answer's fields, or the peer's error raised here."""
        self._socket.settimeout(deadline_s)
        answer = self._socket.recv(MAX_PACKET_NBYTES)
        if answer[:1] == b"e":
            code, _, text = answer[1:].decode().partition(":")
            raise error_from_code(code, text)
        if answer[:1] != b"k":
            raise PeerDied(f"{NAME} {self.process.pid} has ended")
        return answer[1:]

    def ask(self, request: bytes, deadline_s: float = 60.0) -> bytes:
        self.send(request)
        return self.receive(deadline_s)

    def open(self, offer: bytes, owner_pid: int) -> None:
        """Let the peer open a pool of the process `owner_pid`."""
        self.ask(b"O" + struct.pack("!I", owner_pid) + offer)

    def view(self, tensor: DeviceTensor, lease: int = 0) -> None:
        """Let the peer make a view and store it."""
        self.ask(b"V" + struct.pack("!I", lease) + tensor.pack())

    def sums(self, deadline_s: float = 60.0) -> list[float]:
        """Sums of the views that the peer has."""
        data = self.ask(b"R", deadline_s)
        return list(struct.unpack(f"!{len(data) // 8}d", data))

    def make(self, numel: int, value: float, busy_ms: int = 0) -> DeviceTensor:
        """Let the peer keep its stream busy and then fill a float32 tensor in its pool; it does not wait for either."""
        return DeviceTensor.unpack(self.ask(b"T" + struct.pack("!QfI", numel, value, busy_ms)))

    def about(self) -> dict[str, Any]:
        """Its versions."""
        told: dict[str, Any] = json.loads(self.ask(b"I"))
        return told

    def kill(self) -> None:
        """Kill the peer (SIGKILL) and wait for its end."""
        self.process.kill()
        self.process.wait(30)
        self._socket.close()

    def __enter__(self) -> DevicePeer:
        return self

    def __exit__(self, *_: object) -> None:
        if self.is_alive:
            self.kill()


def process_is_alive(pid: int) -> Callable[[], bool]:
    """Tells whether the process with this id at the time of creation still runs."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return lambda: False
    ended = select.poll()
    ended.register(descriptor, select.POLLIN)
    return lambda: not ended.poll(0)


def forbid_torch_ipc() -> None:
    """Make every inter-process CUDA function of torch raise: handles must not come from it."""

    def refused(*_: object, **__: object) -> NoReturn:
        raise AssertionError("torch's own inter-process code was called")

    for owner, names in (
        (torch.UntypedStorage, ("_share_cuda_", "_new_shared_cuda", "_release_ipc_counter_cuda")),
        (torch.cuda.Event, ("ipc_handle", "from_ipc_handle")),
    ):
        for name in names:
            setattr(owner, name, refused)


def checksum(tensor: torch.Tensor) -> int:
    """Sum of the bits of 4-byte elements: equal for equal bytes, in whatever order a torch adds."""
    return int(tensor.view(torch.int32).sum(dtype=torch.int64).item())


class _Peer:
    def __init__(self, ordinal: int) -> None:
        self._ordinal = ordinal
        self._made_device: cuda_ipc.Device | None = None
        self._pool: DevicePool | None = None
        self._opened: OpenedPool[int] | None = None
        self._owner_pid = 0
        self._held: list[torch.Tensor] = []
        self._made: list[torch.Tensor] = []
        self._result: torch.Tensor | None = None

    @property
    def device(self) -> cuda_ipc.Device:
        if self._made_device is None:
            self._made_device = cuda_ipc.Device(self._ordinal)
        return self._made_device

    @property
    def opened(self) -> OpenedPool[int]:
        assert self._opened is not None, "expected O before this request"
        return self._opened

    def ping(self, _: bytes) -> bytes:
        """P -> nothing."""
        return b""

    def about(self, _: bytes) -> bytes:
        """I -> JSON."""
        import cuda.bindings

        told = {"torch": torch.__version__, "cuda-bindings": cuda.bindings.__version__}
        return json.dumps(told).encode()

    def open(self, data: bytes) -> bytes:
        """O: owner's pid u32, offer."""
        self._owner_pid = struct.unpack_from("!I", data)[0]
        self._opened = self._open(DeviceOffer.unpack(data[4:]))
        return b""

    def _open(self, offer: DeviceOffer) -> OpenedPool[int]:
        return OpenedPool(offer, self.device, owner="the owner", is_alive=process_is_alive(self._owner_pid))

    def _view(self, data: bytes) -> torch.Tensor:
        lease = struct.unpack_from("!I", data)[0]
        return self.opened.view(DeviceTensor.unpack(data[4:]), lease, deadline_s=VIEW_DEADLINE_S)

    def _leases(self) -> bytes:
        leases = self.opened.collect()
        return struct.pack(f"!{len(leases)}I", *leases)

    def view(self, data: bytes) -> bytes:
        """V: lease u32, tensor. Makes a view and stores it."""
        self._held.append(self._view(data))
        return b""

    def look(self, data: bytes) -> bytes:
        """L: lease u32, tensor -> ended leases. Makes a view and drops it."""
        self._view(data)
        return self._leases()

    def add(self, data: bytes) -> bytes:
        """A: lease u32, tensor -> ended leases. Computes x + 1, waits for it, drops the view."""
        x = self._view(data)
        if self._result is None or self._result.shape != x.shape:
            self._result = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        torch.add(x, 1, out=self._result)
        torch.cuda.synchronize()
        del x
        return self._leases()

    def result(self, _: bytes) -> bytes:
        """S -> checksum of the last x + 1, i64."""
        assert self._result is not None, "expected A before this request"
        return struct.pack("!q", checksum(self._result))

    def sums(self, _: bytes) -> bytes:
        """R -> sum of each stored view, f64."""
        return struct.pack(f"!{len(self._held)}d", *(view.double().sum().item() for view in self._held))

    def busy(self, data: bytes) -> bytes:
        """B: ms u32. Keeps the stream busy and then reads the stored views; does not wait."""
        torch.cuda._sleep(struct.unpack("!I", data)[0] * CYCLES_PER_MS)
        self._result = sum((view.sum() for view in self._held), torch.zeros((), device=self.device.torch_device))
        return b""

    def drop(self, _: bytes) -> bytes:
        """D -> ended leases. Drops the stored views; does not wait."""
        self._held.clear()
        return self._leases()

    def close(self, _: bytes) -> bytes:
        """K: closes the opened pool, within 10 s."""
        self._held.clear()
        deadline = time.monotonic() + 10
        while not self.opened.close():
            self.opened.collect()
            assert time.monotonic() < deadline, "leases do not end"
        return b""

    def make_pool(self, data: bytes) -> bytes:
        """M: nbytes u64 -> offer."""
        self._pool = DevicePool(self.device, struct.unpack("!Q", data)[0])
        return self._pool.offer.pack()

    def make(self, data: bytes) -> bytes:
        """T: numel u64, value f32, ms u32 -> tensor."""
        assert self._pool is not None, "expected M before this request"
        numel, value, busy_ms = struct.unpack("!QfI", data)
        tensor = self._pool.empty((numel,))
        tensor.fill_(-1)
        torch.cuda._sleep(busy_ms * CYCLES_PER_MS)
        tensor.fill_(value)
        self._made.append(tensor)
        return self._pool.export(*self._pool.place(tensor)).pack()

    def free_nbytes(self, _: bytes) -> bytes:
        """F -> free bytes of the device, u64."""
        return struct.pack("!Q", torch.cuda.mem_get_info(self._ordinal)[0])

    def handle_costs(self, data: bytes) -> bytes:
        """C: rounds u32, lease u32, tensor -> seconds per tensor, f64: pool open; opened and closed for each."""
        rounds = struct.unpack_from("!I", data)[0]
        began = time.perf_counter()
        for _ in range(rounds):
            self.look(data[4:])
        opened_s = time.perf_counter() - began
        offer = self.opened.offer
        self.close(b"")
        began = time.perf_counter()
        for _ in range(rounds):
            self._opened = self._open(offer)
            self.look(data[4:])
            self.close(b"")
        each_s = time.perf_counter() - began
        self._opened = self._open(offer)
        return struct.pack("!2d", opened_s / rounds, each_s / rounds)

    def answer(self, request: bytes) -> bytes:
        """The packet that answers this one."""
        actions = {
            b"P": self.ping, b"I": self.about, b"O": self.open, b"V": self.view, b"L": self.look, b"A": self.add,
            b"S": self.result, b"R": self.sums, b"B": self.busy, b"D": self.drop, b"K": self.close,
            b"M": self.make_pool, b"T": self.make, b"F": self.free_nbytes, b"C": self.handle_costs,
        }  # fmt: skip
        try:
            return b"k" + actions[request[:1]](request[1:])
        except MoraError as error:
            return b"e" + f"{error.code}:{error}".encode()
        except RuntimeError as error:  # torch raises it for errors of CUDA
            return b"e" + f"{DeviceFailed.code}:{error}".encode()[:2000]


def main() -> None:
    """Answer until the other end closes."""
    forbid_torch_ipc()
    connected = socket.socket(fileno=int(sys.argv[1]))
    peer = _Peer(int(sys.argv[2]))
    while request := connected.recv(MAX_PACKET_NBYTES):
        connected.send(peer.answer(request))


if __name__ == "__main__":
    main()
