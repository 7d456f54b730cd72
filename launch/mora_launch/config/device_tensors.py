"""How tensors pass between the agents of a chain, which follows from their devices and from `device_tensors`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from mora_runtime.process.role import Role

if TYPE_CHECKING:
    from mora_launch.config.train_config import TrainConfig

Way = Literal["shared", "staged", "device"]


@dataclass(frozen=True)
class TensorWay:
    """The way of the tensors between two neighbours in the chain of one replica, in both directions.

    Small tensors, and those that the coordinator reads (z, losses), pass inside messages or through shared memory.
    """

    first: Role
    second: Role
    way: Way
    note: str

    def __str__(self) -> str:
        return f"{self.first} <-> {self.second}: {self.way} ({self.note})"


def tensor_ways(config: TrainConfig) -> list[TensorWay]:
    """Return the ways between all neighbours, replica by replica."""
    return [
        _way(config, Role.of(first, replica), Role.of(second, replica))
        for replica in range(config.replicas)
        for first, second in zip(config.chain_names, config.chain_names[1:], strict=False)
    ]


def _way(config: TrainConfig, first: Role, second: Role) -> TensorWay:
    devices = [config.agents[role.name].device(role.replica) for role in (first, second)]
    num_gpus = sum(device != "cpu" for device in devices)
    if num_gpus == 0:
        return TensorWay(first, second, "shared", "both on the CPU")
    if num_gpus == 1:
        return TensorWay(first, second, "staged", "one is on the CPU")
    if not config.device_tensors:
        return TensorWay(first, second, "staged", "device_tensors is off")
    if devices[0] == devices[1]:
        return TensorWay(first, second, "device", f"both on {devices[0]}, nothing is copied")
    note = f"{devices[0]} and {devices[1]}, copied from GPU to GPU; staged if one cannot reach the other"
    return TensorWay(first, second, "device", note)


def device_pool_nbytes(config: TrainConfig, role: Role) -> int:
    """Return the memory of a training server's GPU for tensors that a neighbour reads there; 0 without such one."""
    is_used = any(each.way == "device" and role in (each.first, each.second) for each in tensor_ways(config))
    return config.device_pool_nbytes if is_used else 0
