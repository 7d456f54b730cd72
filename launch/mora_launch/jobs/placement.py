"""The device of each role, and checks that the machine has the devices that a job needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mora_runtime.errors import PlacementError
from mora_runtime.process.role import Role

from mora_launch.config.train_config import TrainConfig
from mora_launch.environments.agent_options import CheckedOptions
from mora_launch.environments.catalog import environments_of
from mora_launch.environments.interpreter import ask_interpreter
from mora_launch.jobs.cuda_driver import CudaDriver, ask_driver
from mora_launch.jobs.resources import available_cores, describe_cores, divide_memory, pin_cores


@dataclass(frozen=True)
class PlacedRole:
    """One process on one device."""

    role: Role
    device: str
    environment: str
    shared_nbytes: int  # budget of its tensors in shared memory, on the host
    cores: str
    python: Path | None = None  # interpreter of its environment; None = nothing is known about its packages
    has_group: bool = False  # exchanges gradients with the other replicas of its agent


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
            role = Role.of(name, replica)
            device, environment = agent.device(replica), agent.environment
            cores = describe_cores(pinned, role)
            placed = PlacedRole(
                role, device, environment, memory[role], cores,
                environments[environment].python, checked[name].has_optimizer and agent.trainable.scope != "none",
            )  # fmt: skip
            roles.append(placed)
        role = Role.of("coordinator", replica)
        roles.append(PlacedRole(role, "cpu", "control", memory[role], "any"))
    return roles


def check_devices(roles: list[PlacedRole], *, trains: bool = True) -> CudaDriver | None:
    """Refuse a placement on devices that this machine does not have, or that the roles cannot use.

    Args:
        trains: False if the roles only answer calls, so that replicas exchange nothing.

    Returns:
        The answer of the driver; None if no role is on a GPU, and it was not asked.

    Raises:
        PlacementError: names the role, the device and what is wrong with it.
    """
    on_gpus = [role for role in roles if is_on_gpu(role)]
    if trains:
        check_groups(roles)
    if not on_gpus:
        return None
    driver = ask_driver()
    pythons = {role.python for role in on_gpus if role.python is not None}
    distributions = {python: ask_interpreter(python).distributions for python in pythons}
    for role in on_gpus:
        problem = driver.problem_of(role.device, distributions[role.python] if role.python is not None else {})
        if problem is not None:
            raise PlacementError(f"{role.role} is placed on {role.device}, but {problem}")
    return driver


def is_on_gpu(role: PlacedRole) -> bool:
    """Whether a role is on a GPU; PlacementError if its device is neither a GPU nor the CPU."""
    kind, _, index = role.device.partition(":")
    if kind == "cpu" and not index:
        return False
    if kind != "cuda" or not index.isdigit():
        raise PlacementError(f"{role.role}: unknown device `{role.device}`; expected cpu, cuda:0, cuda:1, ...")
    return True


def check_groups(roles: list[PlacedRole]) -> None:
    """Refuse two replicas of one trained agent on one GPU (PlacementError)."""
    taken: dict[tuple[str, str], PlacedRole] = {}
    for role in filter(is_on_gpu, roles):
        agent = role.role.rpartition(".")[0]
        first = taken.setdefault((agent, role.device), role) if role.has_group else role
        if first is not role:
            raise PlacementError(
                f"{first.role} and {role.role} are both placed on {role.device}, but NCCL accepts each GPU only once "
                f"in a group: give agents.{agent}.devices one device for each replica, or lower replicas"
            )
