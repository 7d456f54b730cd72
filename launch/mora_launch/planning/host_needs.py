"""What a job needs of the host: memory, disk and /dev/shm."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from mora_launch.planning.disk_room import DiskRoom
from mora_launch.planning.role_memory import RoleMemory

_GPU_SERVER_NBYTES = 3_000_000_000  # CUDA's libraries, torch, DeepSpeed and a model library of one process
_COORDINATOR_NBYTES = 700_000_000
_SHARED_MEMORY = Path("/dev/shm")
_NCCL_SHARED_NBYTES = 1 << 30  # NCCL fails with the 64 MB that a container has by default


@dataclass(frozen=True)
class HostNeeds:
    """Bytes that a job needs, with what this machine has of them."""

    ram: Mapping[str, int]  # parts of the largest phase, by name
    ram_nbytes: int  # of this machine
    disk: DiskRoom
    shared_needed_nbytes: int  # in /dev/shm; Mora's own shared memory is part of `ram`
    shared_nbytes: int

    @property
    def ram_peak_nbytes(self) -> int:
        """All parts together."""
        return sum(self.ram.values())

    def content(self) -> dict[str, object]:
        """The needs for a JSON file."""
        return {
            "ram": {"peak_bytes": self.ram_peak_nbytes, "parts": dict(self.ram), "machine_bytes": self.ram_nbytes},
            "disk": {
                "needed_bytes": self.disk.needed_nbytes,
                "free_bytes": self.disk.free_nbytes,
                "checkpoint_bytes": self.disk.checkpoint_nbytes,
                "num_checkpoints": self.disk.num_checkpoints,
            },
            "dev_shm": {"needed_bytes": self.shared_needed_nbytes, "machine_bytes": self.shared_nbytes},
        }


def host_needs(
    roles: Sequence[RoleMemory], *, cpu_nbytes: int, num_replicas: int, shared_nbytes: int, disk: DiskRoom
) -> HostNeeds:
    """Return the needs of a job.

    Args:
        roles: one for each agent; every replica has one like it.
        cpu_nbytes: of the roles on the CPU, as a device.
        shared_nbytes: budget of all roles' tensors in shared memory.
    """
    on_gpus = [role for role in roles if role.is_on_gpu]
    checkpoint = sum(num_replicas * role.host_checkpoint_nbytes + role.first_host_checkpoint_nbytes for role in roles)
    loading = num_replicas * sum(max(role.weights_nbytes, role.unloaded_nbytes) for role in on_gpus)
    needs_nccl = num_replicas > 1 and any(role.num_trained for role in on_gpus)
    return HostNeeds(
        ram={
            "processes": num_replicas * (len(on_gpus) * _GPU_SERVER_NBYTES + _COORDINATOR_NBYTES),
            "cpu_devices": cpu_nbytes,
            "shared_memory": shared_nbytes,
            # weights are read before the first step, checkpoints are written after it
            ("checkpoint" if checkpoint >= loading else "loading"): max(checkpoint, loading),
        },
        ram_nbytes=psutil.virtual_memory().total,
        disk=disk,
        shared_needed_nbytes=_NCCL_SHARED_NBYTES if needs_nccl else 0,
        shared_nbytes=shutil.disk_usage(_SHARED_MEMORY).total if _SHARED_MEMORY.is_dir() else 0,
    )
