"""Mora's peers: other ways to carry a tensor to another process and one back, one file each.

The function `contestants(folder)` of a peer's module runs in a caller's process; run as a program, the module is the
peer's echo server.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass


@dataclass(frozen=True)
class Family:
    """Peers of one module.

    Args:
        module: name of the module in `benchmarks.ipc.peers`.
        names: names of its contestants.
        needs: optional top-level module that it imports; None if the control environment has all it needs.
        caller: families with the same word share a caller's process; they must not disturb each other.
        is_quick: part of a quick run; each additional peer means two more processes that import torch.
    """

    module: str
    names: tuple[str, ...]
    needs: str | None = None
    caller: str = "sockets"
    is_quick: bool = False

    @property
    def path(self) -> str:
        """Full name of the module."""
        return f"{__name__}.{self.module}"

    @property
    def is_installed(self) -> bool:
        """True if the module that it needs can be imported."""
        return self.needs is None or importlib.util.find_spec(self.needs) is not None


PING = "zmq_ping"
FAMILIES = (
    Family("zmq_ping", (PING,), is_quick=True),
    Family("zmq_inline", ("zmq_inline",)),
    Family("msgpack_inline", ("msgpack_inline",)),
    Family("unix_socket", ("unix_socket",), is_quick=True),
    Family("shm_segment", ("shm_segment",)),
    Family("pooled_memfd", ("pooled_memfd_zmq", "pooled_memfd_doorbell"), is_quick=True),
    Family("gloo", ("gloo",), caller="gloo", is_quick=True),
    Family("torch_rpc", ("torch_rpc",), caller="torch_rpc"),
    Family("torch_queue", ("torch_queue",), caller="torch_queue"),
    Family("grpc_bytes", ("grpc",), needs="grpc", caller="grpc"),
    Family("ray_actor", ("ray_actor_numpy", "ray_actor_torch"), needs="ray", caller="ray_actor"),
    Family("ray_graph", ("ray_graph_numpy", "ray_graph_torch"), needs="ray", caller="ray_graph"),
)
HOW_TO_INSTALL = "uv pip install --python .venvs/control/bin/python -e 'launch[peers]'"
# The alternatives to Mora that the targets are compared with.
RIVALS = (
    *("gloo", "torch_rpc", "grpc", "torch_queue"),
    *("ray_actor_numpy", "ray_actor_torch", "ray_graph_numpy", "ray_graph_torch"),
)
