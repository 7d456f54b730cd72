"""Which role runs where and what memory it needs: the table of `--dry-run`, and the refusal of too few devices."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil
from mora_runtime.errors import PlacementError
from rich.table import Table

from mora_launch.agent_options import CheckedOptions
from mora_launch.config import TrainConfig

_ADAM_NBYTES = 12  # float32 master weight and two moments for each trained parameter, shared out by ZeRO
_EMA_NBYTES = 4
_GIB = 1 << 30


@dataclass(frozen=True)
class PlacedRole:
    """One process on one device with the memory that its weights and optimizer need (activations come on top)."""

    role: str
    device: str
    environment: str
    weights_nbytes: int
    gradients_nbytes: int
    optimizer_nbytes: int

    @property
    def total_nbytes(self) -> int:
        """All static memory of the role."""
        return self.weights_nbytes + self.gradients_nbytes + self.optimizer_nbytes


def place(config: TrainConfig, checked: Mapping[str, CheckedOptions]) -> list[PlacedRole]:
    """Every role of a job in start order."""
    roles = []
    for replica in range(config.replicas):
        for name, agent in config.agents.items():
            components = checked[name].components
            weights = sum(c.num_parameters * c.dtype_nbytes for c in components)
            trained = [c for c in components if c.trainable and agent.trainable.scope != "none"]
            num_trained = sum(c.num_parameters for c in trained)
            share = _ADAM_NBYTES + (_EMA_NBYTES if agent.optimizer.ema_decay is not None else 0)
            optimizer = share * num_trained // config.replicas
            gradients = 4 * num_trained
            if agent.trainable.scope in ("lora", "patterns"):
                optimizer = gradients = 0  # a small part of the module; its count is printed when the job starts
            roles.append(
                PlacedRole(f"{name}.{replica}", agent.device(replica), agent.environment, weights, gradients, optimizer)
            )
        roles.append(PlacedRole(f"coordinator.{replica}", "cpu", "control", 0, 0, 0))
    return roles


def check_devices(roles: list[PlacedRole]) -> None:
    """Refuse a placement on devices that this machine does not have.

    Raises:
        PlacementError: naming the role, the device and how many devices there are.
    """
    num_gpus = len(list(Path("/proc/driver/nvidia/gpus").glob("*")))
    for role in roles:
        kind, _, index = role.device.partition(":")
        if kind == "cpu" and not index:
            continue
        if kind != "cuda" or not index.isdigit():
            raise PlacementError(f"{role.role}: unknown device `{role.device}`; expected cpu, cuda:0, cuda:1, ...")
        if int(index) >= num_gpus:
            raise PlacementError(
                f"{role.role} is placed on {role.device}, but this machine has {num_gpus} CUDA device(s); "
                "change agents.*.devices or replicas, or run on a larger machine"
            )


def placement_table(roles: list[PlacedRole]) -> Table:
    """Roles, devices and memory, then one line for each device."""
    columns = ("role", "device", "environment", "weights", "gradients", "optimizer + EMA", "total")
    table = Table(*columns, box=None, pad_edge=False)
    per_device: dict[str, int] = defaultdict(int)
    for role in roles:
        sizes = (role.weights_nbytes, role.gradients_nbytes, role.optimizer_nbytes, role.total_nbytes)
        table.add_row(role.role, role.device, role.environment, *(format_nbytes(size) for size in sizes))
        per_device[role.device] += role.total_nbytes
    table.add_section()
    for device, nbytes in per_device.items():
        note = f"of {format_nbytes(psutil.virtual_memory().total)} on this machine" if device == "cpu" else ""
        table.add_row("", device, note, "", "", "", format_nbytes(nbytes), style="bold")
    return table


def format_nbytes(nbytes: int) -> str:
    """A size for people: GiB or MiB with one decimal."""
    return f"{nbytes / _GIB:.1f} GiB" if nbytes >= _GIB else f"{nbytes / (1 << 20):.1f} MiB"
