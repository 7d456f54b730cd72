"""Ray: calls a method of an actor; x and y pass through Ray's object store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ray

from benchmarks.ipc.contestant import DEADLINE_S, Contestant
from benchmarks.ipc.peers.ray_cluster import Cluster, RayContestant


class RayActor(RayContestant):
    """The caller's side."""

    def start(self) -> None:
        self._actor = self.cluster.start()

    def echo(self, x: Any) -> Any:
        return ray.get(self._actor.add_one.remote(x), timeout=DEADLINE_S)


def contestants(folder: Path) -> list[Contestant]:
    """For the caller: the same actor with numpy arrays, which Ray does not copy, and with tensors."""
    cluster = Cluster()
    return [RayActor("ray_actor_numpy", cluster), RayActor("ray_actor_torch", cluster)]
