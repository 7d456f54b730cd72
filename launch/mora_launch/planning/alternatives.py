"""Other placements of the same job on the same GPUs, and which of them is fastest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from mora_runtime.errors import PlacementError

from mora_launch.config.train_config import TrainConfig
from mora_launch.planning.job_plan import JobPlan

_WORTH_TELLING = 1.05  # times the samples a second of the present placement


@dataclass(frozen=True)
class Alternative:
    """One placement, with the changes that set it."""

    plan: JobPlan
    changes: tuple[str, ...]  # for --set; none = as configured
    told: str

    @property
    def changes_batch(self) -> bool:
        """Whether it needs another batch size than the configured one."""
        return any(change.startswith("training.batch_size=") for change in self.changes)

    def content(self) -> dict[str, object]:
        """The placement for a JSON file."""
        assert self.plan.time is not None
        return {
            "placement": self.told,
            "set": list(self.changes),
            "step_s": self.plan.time.step_s,
            "samples_per_s": self.plan.samples_per_second,
            "busy": busy_shares(self.plan),
        }


def alternatives(plan: JobPlan) -> list[Alternative]:
    """Return the configured placement and all others that fit, the fastest first; none if no time is known."""
    if plan.time is None:
        return []
    found = [Alternative(plan, (), "as configured"), *_others(plan)]
    return sorted(found, key=lambda each: -(each.plan.samples_per_second or 0.0))


def best(found: Sequence[Alternative], *, same_batch: bool) -> Alternative | None:
    """Return the fastest placement, if it is clearly faster than the configured one.

    Args:
        same_batch: only placements that keep the configured batch size, and so the numbers that training gives.
    """
    present = next((each for each in found if not each.changes), None)
    allowed = [each for each in found if each.changes and each.changes_batch != same_batch]
    if present is None or not allowed:
        return None
    first, now = allowed[0].plan.samples_per_second, present.plan.samples_per_second
    return allowed[0] if first is not None and now is not None and first > _WORTH_TELLING * now else None


def busy_shares(plan: JobPlan) -> dict[str, float]:
    """Return the share of a step in which each device works."""
    time = plan.time
    return {} if time is None else {device: busy_s / time.step_s for device, busy_s in time.busy_s.items()}


def _others(plan: JobPlan) -> Iterator[Alternative]:
    config, gpus = plan.config, sorted(plan.gpus, key=lambda device: int(device.partition(":")[2]))
    training = config.training
    for num_replicas in range(1, len(gpus) + 1):
        unit = num_replicas * training.micro_batch_size
        batch_size = -(-training.batch_size // unit) * unit
        for told, devices in _placements(config, gpus, num_replicas):
            changes = _changes(config, num_replicas, batch_size, devices)
            if not changes:
                continue
            other = replace(plan, config=_changed(config, num_replicas, batch_size, devices))
            try:
                other.check_memory()
            except PlacementError:
                continue
            yield Alternative(other, changes, told)


def _placements(
    config: TrainConfig, gpus: Sequence[str], num_replicas: int
) -> Iterator[tuple[str, dict[str, tuple[str, ...]]]]:
    """Devices of each agent: all agents of a replica on one GPU, or each agent on GPUs of its own."""
    names = list(config.agents)
    together = tuple(gpus[:num_replicas])
    yield f"all agents on each of {num_replicas} GPUs", dict.fromkeys(names, together)
    if num_replicas * len(names) <= len(gpus):
        apart = {
            name: tuple(gpus[number * num_replicas : (number + 1) * num_replicas]) for number, name in enumerate(names)
        }
        yield f"each agent on {num_replicas} GPUs of its own", apart


def _changed(
    config: TrainConfig, num_replicas: int, batch_size: int, devices: dict[str, tuple[str, ...]]
) -> TrainConfig:
    agents = {name: agent.model_copy(update={"devices": devices[name]}) for name, agent in config.agents.items()}
    training = config.training.model_copy(update={"batch_size": batch_size})
    return config.model_copy(update={"replicas": num_replicas, "training": training, "agents": agents})


def _changes(
    config: TrainConfig, num_replicas: int, batch_size: int, devices: dict[str, tuple[str, ...]]
) -> tuple[str, ...]:
    changes = [] if num_replicas == config.replicas else [f"replicas={num_replicas}"]
    if batch_size != config.training.batch_size:
        changes.append(f"training.batch_size={batch_size}")
    for name, agent in config.agents.items():
        present = tuple(agent.device(replica) for replica in range(config.replicas))
        if devices[name] != present:
            changes.append(f"agents.{name}.devices=[{','.join(devices[name])}]")
    return tuple(changes)
