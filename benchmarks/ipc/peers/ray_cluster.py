"""A local Ray cluster with one echo actor, for `ray_actor` and `ray_graph`.

Each has its own cluster, because the worker of a compiled graph keeps a core busy while it waits.
"""

from __future__ import annotations

import os
import tempfile
from typing import Any

import ray
import torch
from ray.actor import ActorHandle

from benchmarks.ipc.contestant import Contestant
from benchmarks.ipc.lifetime import ONE_THREAD

_STORE_NBYTES = 2 << 30


@ray.remote(num_cpus=0)
class EchoActor:
    """The actor, in a worker process of Ray."""

    def __init__(self) -> None:
        torch.set_num_threads(1)

    def add_one(self, x: Any) -> Any:
        """Return x + 1 for a numpy array or a tensor."""
        return x + 1


def open_cluster() -> tempfile.TemporaryDirectory[str]:
    """Start a cluster for this process. `ray.shutdown` ends it; after that its folder can be deleted."""
    os.environ.update(ONE_THREAD, RAY_USAGE_STATS_ENABLED="0", RAY_AUTH_MODE="disabled")
    # Ray's socket paths are long and the kernel's limit is 107 bytes, so its folder needs a short path
    folder = tempfile.TemporaryDirectory(prefix="ray-")
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=_STORE_NBYTES,
        log_to_driver=False,
        _temp_dir=folder.name,
        _node_ip_address="127.0.0.1",
    )
    return folder


class Cluster:
    """A cluster that the first contestant starts and the first `close` ends."""

    def __init__(self) -> None:
        self.actor: ActorHandle[Any] | None = None

    def start(self) -> ActorHandle[Any]:
        """The actor of the running cluster."""
        if self.actor is None:
            self._folder = open_cluster()
            self.actor = EchoActor.remote()  # type: ignore[attr-defined]
        return self.actor

    def close(self) -> None:
        """End every process of the cluster."""
        if self.actor is not None:
            self.actor = None
            ray.shutdown()
            self._folder.cleanup()


class RayContestant(Contestant):
    """The common part of calls through objects and through compiled graphs."""

    def __init__(self, name: str, cluster: Cluster) -> None:
        self.name = name
        self.cluster = cluster
        self._as_numpy = name.endswith("_numpy")

    def prepare(self, x: torch.Tensor) -> Any:
        return x.numpy() if self._as_numpy else x

    def close(self) -> None:
        self.cluster.close()
