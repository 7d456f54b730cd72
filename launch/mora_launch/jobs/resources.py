"""Dividing a machine's shared memory and processor cores among the roles of a job."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from mora_runtime.errors import PlacementError
from mora_runtime.process.role import Role

from mora_launch.config.train_config import TrainConfig
from mora_launch.jobs.cuda_driver import Gpu

_NODES = Path("/sys/devices/system/node")
_PCI_DEVICES = Path("/sys/bus/pci/devices")
MIN_ARENA_NBYTES = 16 << 20


def divide_memory(config: TrainConfig) -> dict[Role, int]:
    """Return each role's budget for tensors in shared memory: `arena_nbytes` if set, else an equal share of the rest.

    Raises:
        PlacementError: a share would be less than 16 MiB.
    """
    explicit = {
        Role.of(name, replica): agent.arena_nbytes
        for replica in range(config.replicas)
        for name, agent in config.agents.items()
        if agent.arena_nbytes is not None
    }
    roles = role_names(config)
    left = config.shared_memory_nbytes - sum(explicit.values())
    num_sharing = len(roles) - len(explicit)  # never 0: coordinators always share
    share = left // num_sharing
    if share < MIN_ARENA_NBYTES:
        raise PlacementError(
            f"shared_memory_nbytes {config.shared_memory_nbytes} leaves {max(0, share)} bytes for each of "
            f"{num_sharing} roles, expected at least {MIN_ARENA_NBYTES}; raise it, or lower agents.*.arena_nbytes"
        )
    return {role: explicit.get(role, share) for role in roles}


def role_names(config: TrainConfig) -> list[Role]:
    """Return all roles of a job, replica by replica."""
    names = [*(name for name, _ in config.agents.items()), "coordinator"]
    return [Role.of(name, replica) for replica in range(config.replicas) for name in names]


def pin_cores(config: TrainConfig, available: Sequence[Sequence[int]]) -> dict[Role, tuple[int, ...]]:
    """Assign each CPU server cores that no other server uses, because servers slow each other down on shared cores.

    Args:
        available: cores of each memory node. A server gets cores of a single node if one has enough.

    Returns:
        Cores by role; empty if pinning is off or there are not enough cores for all threads.
    """
    wanted = [
        (Role.of(name, replica), agent.num_threads)
        for replica in range(config.replicas)
        for name, agent in config.agents.items()
        if agent.device(replica) == "cpu"
    ]
    free = [list(cores) for cores in available]
    if not config.pin_cores or sum(num for _, num in wanted) > sum(map(len, free)):
        return {}
    return dict(_taken(wanted, free))


def near_cores(
    config: TrainConfig, gpus: Sequence[Gpu], pinned: Mapping[Role, tuple[int, ...]]
) -> dict[Role, tuple[int, ...]]:
    """Assign each GPU server the cores of the memory node that its GPU is attached to; GPU servers share them.

    Args:
        gpus: as the driver shows them.
        pinned: cores that CPU servers have for themselves.

    Returns:
        Cores by role, without roles whose GPU tells no node; empty if pinning is off.
    """
    if not config.pin_cores:
        return {}
    taken = {core for cores in pinned.values() for core in cores}
    near: dict[Role, tuple[int, ...]] = {}
    for replica in range(config.replicas):
        for name, agent in config.agents.items():
            kind, _, index = agent.device(replica).partition(":")
            if kind == "cuda" and int(index) < len(gpus):
                cores = tuple(sorted(_cores_at(gpus[int(index)]) & os.sched_getaffinity(0) - taken))
                if cores:
                    near[Role.of(name, replica)] = cores
    return near


def _cores_at(gpu: Gpu) -> set[int]:
    """Cores of the memory node that a GPU is attached to; none if the machine has one node or does not tell."""
    try:
        node = int((_PCI_DEVICES / gpu.pci_bus_id.lower() / "numa_node").read_text())
        return _cores_of((_NODES / f"node{node}" / "cpulist").read_text())
    except (OSError, ValueError):
        return set()


def _taken(wanted: Sequence[tuple[Role, int]], free: list[list[int]]) -> Iterator[tuple[Role, tuple[int, ...]]]:
    for role, number in wanted:
        node = next((cores for cores in free if len(cores) >= number), None)
        pool = node if node is not None else [core for cores in free for core in cores]
        taken = tuple(pool[:number])
        for cores in free:
            cores[:] = [core for core in cores if core not in taken]
        yield role, taken


def available_cores() -> list[list[int]]:
    """Return the cores that this process may use, by memory node (NUMA)."""
    allowed = os.sched_getaffinity(0)
    nodes = [_cores_of(path.read_text()) for path in sorted(_NODES.glob("node[0-9]*/cpulist"))]
    by_node = [sorted(allowed & cores) for cores in nodes]
    return [cores for cores in by_node if cores] or [sorted(allowed)]


def _cores_of(text: str) -> set[int]:
    """Parse the kernel's notation of cores, for example `0-3,8`."""
    cores: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        cores |= set(range(int(first), int(last or first) + 1))
    return cores


def describe_cores(pinned: Mapping[Role, tuple[int, ...]], role: Role) -> str:
    """Format a role's pinned cores for a table."""
    return ",".join(map(str, pinned[role])) if role in pinned else "any"
