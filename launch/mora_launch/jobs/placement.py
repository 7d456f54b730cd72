"""The device and memory of each role: the table of `--dry-run`, and checks that the machine has what a job needs."""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil
from mora_runtime.errors import ConfigurationError, PlacementError
from mora_runtime.process.role import Role
from rich.table import Table

from mora_launch.config.agent_config import AgentConfig
from mora_launch.config.train_config import TrainConfig
from mora_launch.environments.agent_options import CheckedOptions
from mora_launch.environments.catalog import environments_of
from mora_launch.environments.interpreter import ask_interpreter
from mora_launch.jobs.cuda_driver import ask_driver
from mora_launch.jobs.resources import available_cores, describe_cores, divide_memory, pin_cores

_ADAM_NBYTES = 12  # float32 master weight and two moments for each trained parameter, divided by ZeRO
_MASTER_NBYTES = 4
_EMA_NBYTES = 4
_GIB = 1 << 30


@dataclass(frozen=True)
class PlacedRole:
    """One process on one device, with the memory of its weights and optimizer but not of activations."""

    role: Role
    device: str
    environment: str
    weights_nbytes: int
    gradients_nbytes: int
    optimizer_nbytes: int
    shared_nbytes: int  # budget of its tensors in shared memory, on the host
    cores: str
    python: Path | None = None  # interpreter of its environment; None = nothing is known about its packages
    has_group: bool = False  # exchanges gradients with the other replicas of its agent

    @property
    def total_nbytes(self) -> int:
        """All static memory of the role."""
        return self.weights_nbytes + self.gradients_nbytes + self.optimizer_nbytes


def place(config: TrainConfig, checked: Mapping[str, CheckedOptions]) -> list[PlacedRole]:
    """Return every role of a job in start order.

    Raises:
        PlacementError: the roles would get too little shared memory.
    """
    roles = []
    environments = environments_of(config)
    memory = divide_memory(config)
    pinned = pin_cores(config, available_cores())
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
            role = Role.of(name, replica)
            device, environment = agent.device(replica), agent.environment
            cores = describe_cores(pinned, role)
            placed = PlacedRole(
                role, device, environment, weights, gradients, optimizer, memory[role], cores,
                environments[environment].python, checked[name].has_optimizer and agent.trainable.scope != "none",
            )  # fmt: skip
            roles.append(placed)
        role = Role.of("coordinator", replica)
        roles.append(PlacedRole(role, "cpu", "control", 0, 0, 0, memory[role], "any"))
    return roles


def check_devices(roles: list[PlacedRole], *, trains: bool = True) -> None:
    """Refuse a placement on devices that this machine does not have, or that the roles cannot use.

    Args:
        trains: False if the roles only answer calls, so that replicas exchange nothing.

    Raises:
        PlacementError: names the role, the device and what is wrong with it.
    """
    on_gpus = [role for role in roles if _is_gpu(role)]
    if trains:
        _check_groups(on_gpus)
    if not on_gpus:
        return
    driver = ask_driver()
    pythons = {role.python for role in on_gpus if role.python is not None}
    distributions = {python: ask_interpreter(python).distributions for python in pythons}
    for role in on_gpus:
        problem = driver.problem_of(role.device, distributions[role.python] if role.python is not None else {})
        if problem is not None:
            raise PlacementError(f"{role.role} is placed on {role.device}, but {problem}")


def _is_gpu(role: PlacedRole) -> bool:
    kind, _, index = role.device.partition(":")
    if kind == "cpu" and not index:
        return False
    if kind != "cuda" or not index.isdigit():
        raise PlacementError(f"{role.role}: unknown device `{role.device}`; expected cpu, cuda:0, cuda:1, ...")
    return True


def _check_groups(on_gpus: list[PlacedRole]) -> None:
    """Refuse two replicas of one trained agent on one GPU."""
    taken: dict[tuple[str, str], PlacedRole] = {}
    for role in on_gpus:
        agent = role.role.rpartition(".")[0]
        first = taken.setdefault((agent, role.device), role) if role.has_group else role
        if first is not role:
            raise PlacementError(
                f"{first.role} and {role.role} are both placed on {role.device}, but NCCL accepts each GPU only once "
                f"in a group: give agents.{agent}.devices one device for each replica, or lower replicas"
            )


def check_disk(config: TrainConfig, checked: Mapping[str, CheckedOptions], run: Path) -> None:
    """Refuse a job whose checkpoints do not fit on the disk of its run.

    Raises:
        ConfigurationError: names the room that they need and the room that is free.
    """
    nbytes = sum(
        checkpoint_nbytes(agent, checked[name]) for name, agent in config.agents.items() if checked[name].has_optimizer
    )
    training = config.training
    num_saves = -(-training.num_steps // training.checkpoint_every) if training.checkpoint_every else 1
    num_kept = min(num_saves, training.keep_checkpoints + 1)  # an old one is deleted when the next is complete
    present = sum(path.stat().st_size for path in (run / "checkpoints").rglob("*") if path.is_file())
    free = shutil.disk_usage(next(path for path in (run, *run.absolute().parents) if path.exists())).free
    if free + present < num_kept * nbytes:
        raise ConfigurationError(
            f"{run}: {num_kept} checkpoints of {format_nbytes(nbytes)} need {format_nbytes(num_kept * nbytes)} "
            f"(training.keep_checkpoints {training.keep_checkpoints}, and the one that is being written), but the disk "
            f"has {format_nbytes(free + present)} for them: free disk space, lower training.keep_checkpoints, or "
            "choose another --run"
        )


def checkpoint_nbytes(agent: AgentConfig, checked: CheckedOptions) -> int:
    """Return the size of one trained agent's part of a checkpoint, over all replicas: weights, average and optimizer.

    Adapters (LoRA) and single trained layers are counted as nothing, because their sizes are not known here.
    """
    module = [c for c in checked.components if c.trainable]
    weights = sum(c.num_parameters * c.dtype_nbytes for c in module)
    num_trained = sum(c.num_parameters for c in module)
    has_average = agent.optimizer.ema_decay is not None
    if agent.trainable.scope == "lora":
        return 0
    if agent.trainable.scope == "none":
        return weights
    if agent.trainable.scope == "patterns":
        return weights * (2 if has_average else 1)
    master_and_moments = _ADAM_NBYTES if agent.optimizer.kind == "adamw" else _MASTER_NBYTES
    average = 2 * _EMA_NBYTES if has_average else 0  # in the optimizer's shards, and as weights of their own
    return weights + (master_and_moments + average) * num_trained


def placement_table(roles: list[PlacedRole]) -> Table:
    """Return a table of roles, devices and memory, with a total for each device."""
    columns = (
        "role", "device", "cores", "environment", "weights", "gradients", "optimizer + EMA", "total", "shared memory"
    )  # fmt: skip
    table = Table(*columns, box=None, pad_edge=False)
    per_device: dict[str, int] = defaultdict(int)
    for role in roles:
        sizes = (role.weights_nbytes, role.gradients_nbytes, role.optimizer_nbytes, role.total_nbytes)
        shown = [format_nbytes(size) for size in (*sizes, role.shared_nbytes)]
        table.add_row(role.role, role.device, role.cores, role.environment, *shown)
        per_device[role.device] += role.total_nbytes
    table.add_section()
    for device, nbytes in per_device.items():
        note = f"of {format_nbytes(psutil.virtual_memory().total)} on this machine" if device == "cpu" else ""
        table.add_row("", device, "", note, "", "", "", format_nbytes(nbytes), "", style="bold")
    table.add_row("", "", "", "", "", "", "", "", format_nbytes(sum(role.shared_nbytes for role in roles)))
    return table


def format_nbytes(nbytes: int) -> str:
    """Format a size in GiB or MiB with one decimal."""
    return f"{nbytes / _GIB:.1f} GiB" if nbytes >= _GIB else f"{nbytes / (1 << 20):.1f} MiB"
