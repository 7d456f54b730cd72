"""Mora's runtime: tensors, calls and gradients between processes that cannot share a Python environment.

Public names are loaded on first use, so that a command line which needs only `mora_runtime.errors` or
`mora_runtime.run_directory` starts without importing torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mora_runtime.activity import cancelled_samples, check_cancelled, report_step
    from mora_runtime.agent import Agent, ModuleAgent, remote
    from mora_runtime.client import Client, wait_any
    from mora_runtime.errors import MoraError
    from mora_runtime.node import Node, empty
    from mora_runtime.pending import PendingBackward, PendingReply, Reply, Ticket
    from mora_runtime.plane import TensorRef
    from mora_runtime.remote_module import RemoteModule
    from mora_runtime.run_directory import RunDirectory
    from mora_runtime.server_process import serve
    from mora_runtime.server_settings import ServerSettings

_HOME = {
    "Agent": "agent",
    "Client": "client",
    "ModuleAgent": "agent",
    "MoraError": "errors",
    "Node": "node",
    "PendingBackward": "pending",
    "PendingReply": "pending",
    "RemoteModule": "remote_module",
    "Reply": "pending",
    "RunDirectory": "run_directory",
    "ServerSettings": "server_settings",
    "TensorRef": "plane",
    "Ticket": "pending",
    "cancelled_samples": "activity",
    "check_cancelled": "activity",
    "empty": "node",
    "remote": "agent",
    "report_step": "activity",
    "serve": "server_process",
    "wait_any": "client",
}

__all__ = [
    "Agent",
    "Client",
    "ModuleAgent",
    "MoraError",
    "Node",
    "PendingBackward",
    "PendingReply",
    "RemoteModule",
    "Reply",
    "RunDirectory",
    "ServerSettings",
    "TensorRef",
    "Ticket",
    "cancelled_samples",
    "check_cancelled",
    "empty",
    "remote",
    "report_step",
    "serve",
    "wait_any",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = found  # the next use does not come here
    return found
