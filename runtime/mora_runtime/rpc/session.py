"""A process's membership in a run: its identity, its arena, its connections."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Sequence

import torch
import zmq

from mora_runtime.device.device_plane import DevicePlane
from mora_runtime.limits import (
    DEFAULT_ARENA_NBYTES,
    DEFAULT_SPILL_NBYTES,
    HEARTBEAT_TIMEOUT_S,
    SLOT_DEADLINE_S,
    WARM_NBYTES,
)
from mora_runtime.process.run_directory import RunDirectory
from mora_runtime.rpc.client import Client, wait_for_messages
from mora_runtime.rpc.pool_exchange import PoolExchange
from mora_runtime.tensors.arena import Arena
from mora_runtime.tensors.tensor_store import TensorStore
from mora_runtime.trace import tracing
from mora_runtime.wire.sockets import client_socket, make_keys
from mora_runtime.wire.spin import Spin, default_longest_ns

_current: Session | None = None


class Session:
    """The session of a process, opened once; a context manager."""

    def __init__(
        self, run: RunDirectory, name: str, generation: int, arena: Arena, spin: Spin, heartbeat_timeout_s: float
    ) -> None:
        self.run = run
        self.heartbeat_timeout_s = heartbeat_timeout_s
        # never reused: ZeroMQ would silently ignore a restarted peer with its predecessor's identity
        self.identity = f"{name}.{generation}.{secrets.token_hex(8)}"
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.store = TensorStore(self.identity, arena)
        self.spin = spin
        arena.lenders = self
        self._clients: list[Client] = []
        self._exchange = PoolExchange()
        self._numbers = itertools.count(1)

    @classmethod
    def open(
        cls,
        run: RunDirectory,
        name: str,
        generation: int = 1,
        *,
        arena_budget_nbytes: int = DEFAULT_ARENA_NBYTES,
        spill_budget_nbytes: int = DEFAULT_SPILL_NBYTES,
        warm_nbytes: int = WARM_NBYTES,
        spin_ns: int | None = None,
        heartbeat_timeout_s: float = HEARTBEAT_TIMEOUT_S,
    ) -> Session:
        """Open this process's session; `mora_runtime.empty` uses it from now on.

        Args:
            arena_budget_nbytes, spill_budget_nbytes, warm_nbytes: see `Arena`.
            spin_ns: longest spin for a message before this process sleeps; set more if it has a core for itself.
                None = 2 ms, or no spinning if the process is confined to one core.
            heartbeat_timeout_s: silence of a peer after which ZeroMQ drops the connection and connects again.
        """
        global _current
        make_keys(run)
        spin = Spin(default_longest_ns() if spin_ns is None else spin_ns)
        arena = Arena(
            arena_budget_nbytes, spill_nbytes=spill_budget_nbytes, warm_nbytes=warm_nbytes, wait_s=SLOT_DEADLINE_S
        )
        _current = cls(run, name, generation, arena, spin, heartbeat_timeout_s)
        if tracing.active is not None:
            tracing.active.gauges["arena"] = _current.arena_use
        return _current

    def share_device(self, device: torch.device | str, pool_nbytes: int) -> bool:
        """Let other processes read this process's tensors on a GPU in place. Call it before the first connection.

        It has not run on a GPU yet.

        Args:
            pool_nbytes: memory that is allocated on the device now, for tensors that others read. When it is full,
                tensors go through shared memory.

        Returns:
            False, with the reason in the log, if this device's memory cannot be shared: all tensors go through shared
            memory.
        """
        plane = DevicePlane.opened_on(torch.device(device), pool_nbytes)
        if plane is not None:
            self.store.share(plane)
        return plane is not None

    def arena_use(self) -> dict[str, float]:
        """Bytes of shared memory that this process has allocated, for the trace."""
        arena = self.store.arena
        return {"allocated_nbytes": arena.allocated_nbytes, "spilled_nbytes": arena.spilled_nbytes}

    def reclaim(self, timeout_s: float) -> bool:
        """Wait until a server may have released slots (for `Arena`); False when no server has a lease."""
        holding = [client for client in self._clients if client.peer.exports]
        if holding:
            wait_for_messages(holding, timeout_s)
        return bool(holding)

    def holders(self) -> str:
        """Describe the servers' leases (for `Arena`)."""
        return "; ".join(client.peer.holding() for client in self._clients) or "none"

    def empty(
        self, shape: Sequence[int], dtype: torch.dtype = torch.float32, device: torch.device | None = None
    ) -> torch.Tensor:
        """Make an uninitialised tensor in a slot of this process; sending the whole tensor copies nothing.

        Args:
            device: None = the CPU. A slot on a GPU exists only where this process shares its memory.
        """
        plane = self.store.plane
        if device is None or (device.type == "cpu" and plane is None):
            return self.store.arena.empty(shape, dtype)
        if plane is not None and plane.device.torch_device == device:
            return plane.empty(tuple(shape), dtype)
        return torch.empty(tuple(shape), dtype=dtype, device=device)

    def connect(
        self, server: str, *, deadline_s: float, expected_lock_hash: str | None = None, doorbell: bool = True
    ) -> Client:
        """Connect to a role of this run and greet it.

        Args:
            expected_lock_hash: of the environment in which the server must run; None accepts any.
            doorbell: send calls through the doorbell; False sends them over ZeroMQ, which is slower.

        Raises:
            DeadlineExceeded: it did not answer in time.
            ProtocolError: another protocol version or lock; the text names both sides.
        """
        identity = f"{self.identity}#{next(self._numbers)}"
        calls, control = (
            client_socket(
                self.context, self.run, f"ipc://{self.run.socket(server, kind)}", identity.encode(),
                heartbeat_timeout_s=self.heartbeat_timeout_s,
            )
            for kind in ("calls", "control")
        )  # fmt: skip
        doorbell_path = str(self.run.socket(server, "doorbell"))
        client = Client(
            self.store, calls, control, server, doorbell_path, identity=identity, uses_doorbell=doorbell,
            spin=self.spin, exchange=self._exchange,
        )  # fmt: skip
        try:
            client.greet(deadline_s, expected_lock_hash)
        except BaseException:
            client.close()
            raise
        self._clients.append(client)
        return client

    def close(self) -> None:
        """Close every connection and free all memory."""
        global _current
        for client in self._clients:
            client.close()
        self._clients.clear()
        self.store.close()
        self.context.destroy(linger=0)
        if _current is self:
            _current = None

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def empty(
    shape: Sequence[int], dtype: torch.dtype = torch.float32, device: torch.device | str | None = None
) -> torch.Tensor:
    """Make an uninitialised tensor in a slot of this process's session, or in ordinary memory without a session.

    Agents make their outputs with it, so that sending them copies nothing; the same code runs without a server.

    Args:
        device: None = the CPU.
    """
    where = None if device is None else torch.device(device)
    if _current is None:
        return torch.empty(tuple(shape), dtype=dtype, device=where)
    return _current.empty(shape, dtype, where)
