"""Ray: the actor's method as a compiled graph, whose channels are made once and reused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ray
from ray.dag import InputNode

from benchmarks.ipc.contestant import DEADLINE_S, Contestant
from benchmarks.ipc.peers.ray_cluster import Cluster, RayContestant

_BUFFER_NBYTES = (256 << 20) + (1 << 20)  # the largest message and its envelope


class GraphCluster(Cluster):
    """A cluster whose actor runs a compiled graph and nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.graph: Any = None

    def compiled(self) -> Any:
        """The graph; the first access compiles it."""
        actor = self.start()
        if self.graph is None:
            with InputNode() as x:
                graph = actor.add_one.bind(x)
            # one message at a time, as in every echo here: ten sets of buffers would not fit into the object store
            self.graph = graph.experimental_compile(_buffer_size_bytes=_BUFFER_NBYTES, _max_inflight_executions=1)
        return self.graph

    def close(self) -> None:
        if self.graph is not None:
            self.graph.teardown()
            self.graph = None
        super().close()


class RayGraph(RayContestant):
    """The caller's side."""

    note = f"compiled for one message in flight, buffers of {_BUFFER_NBYTES} bytes"
    cluster: GraphCluster

    def start(self) -> None:
        self._graph = self.cluster.compiled()

    def echo(self, x: Any) -> Any:
        return ray.get(self._graph.execute(x), timeout=DEADLINE_S)


def contestants(folder: Path) -> list[Contestant]:
    """The contestants for the caller: one graph that gets numpy arrays or tensors."""
    cluster = GraphCluster()
    return [RayGraph("ray_graph_numpy", cluster), RayGraph("ray_graph_torch", cluster)]
