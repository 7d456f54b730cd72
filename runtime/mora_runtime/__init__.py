"""Mora's runtime: tensors, calls and gradients between processes that cannot share a Python environment.

Public names are loaded on first use, so that a command line which needs only `mora_runtime.errors` or
`mora_runtime.process.run_directory` starts without importing torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mora_runtime.errors import MoraError
    from mora_runtime.process.run_directory import RunDirectory
    from mora_runtime.rpc.activity import cancelled_samples, check_cancelled, report_part, report_step
    from mora_runtime.rpc.agent import Agent, ModuleAgent, remote
    from mora_runtime.rpc.client import Client, wait_any
    from mora_runtime.rpc.pending import GraphHandle, PendingBackward, PendingReply, Reply
    from mora_runtime.rpc.remote_module import RemoteModule
    from mora_runtime.rpc.server_process import host, serve
    from mora_runtime.rpc.server_settings import ServerSettings
    from mora_runtime.rpc.session import Session, empty
    from mora_runtime.rpc.spawn import SpawnedServer, spawn
    from mora_runtime.tensors.tensor_store import TensorRef

_HOME = {
    "Agent": "rpc.agent",
    "Client": "rpc.client",
    "GraphHandle": "rpc.pending",
    "ModuleAgent": "rpc.agent",
    "MoraError": "errors",
    "PendingBackward": "rpc.pending",
    "PendingReply": "rpc.pending",
    "RemoteModule": "rpc.remote_module",
    "Reply": "rpc.pending",
    "RunDirectory": "process.run_directory",
    "ServerSettings": "rpc.server_settings",
    "Session": "rpc.session",
    "SpawnedServer": "rpc.spawn",
    "TensorRef": "tensors.tensor_store",
    "cancelled_samples": "rpc.activity",
    "check_cancelled": "rpc.activity",
    "empty": "rpc.session",
    "host": "rpc.server_process",
    "remote": "rpc.agent",
    "report_part": "rpc.activity",
    "report_step": "rpc.activity",
    "serve": "rpc.server_process",
    "spawn": "rpc.spawn",
    "wait_any": "rpc.client",
}

__all__ = [
    "Agent",
    "Client",
    "GraphHandle",
    "ModuleAgent",
    "MoraError",
    "PendingBackward",
    "PendingReply",
    "RemoteModule",
    "Reply",
    "RunDirectory",
    "ServerSettings",
    "Session",
    "SpawnedServer",
    "TensorRef",
    "cancelled_samples",
    "check_cancelled",
    "empty",
    "host",
    "remote",
    "report_part",
    "report_step",
    "serve",
    "spawn",
    "wait_any",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = found  # later uses bypass this function
    return found
