"""The plan of one job on one placement."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property

import psutil
from mora_environment.cost import AgentCost
from mora_runtime.errors import PlacementError
from mora_runtime.process.role import Role

from mora_launch.config.device_tensors import device_pool_nbytes
from mora_launch.config.train_config import TrainConfig
from mora_launch.environments.agent_options import CheckedOptions
from mora_launch.planning.call_time import call_seconds
from mora_launch.planning.gpu_rates import GpuRates
from mora_launch.planning.machine import PlannedGpu
from mora_launch.planning.memory_parts import PHASES, MemoryParts, Phase, added
from mora_launch.planning.role_memory import RoleMemory
from mora_launch.planning.step_time import StepTime, TimedStage, reduction_seconds, step_time
from mora_launch.terminal import format_nbytes

FULL_SHARE = 0.92  # of a device; above it, fragments of freed memory no longer fit


@dataclass(frozen=True)
class JobPlan:
    """Memory and time of a job.

    Args:
        config: of the chain.
        costs: by agent; None where a kind does not tell.
        gpus: by device.
    """

    config: TrainConfig
    checked: Mapping[str, CheckedOptions]
    costs: Mapping[str, AgentCost | None]
    gpus: Mapping[str, PlannedGpu]

    @cached_property
    def roles(self) -> dict[str, RoleMemory]:
        """The memory of each agent's servers, which is the same in all replicas."""
        config = self.config
        num_micro_batches = self.num_micro_batches
        last = config.chain_names[-1]
        return {
            name: RoleMemory(
                agent,
                self.checked[name],
                self.costs[name],
                num_replicas=config.replicas,
                # the last agent's forward and backward are one call
                num_graphs=1 if name == last else min(config.max_in_flight, num_micro_batches),
                is_on_gpu=agent.device(0) != "cpu",
                pool_nbytes=max(
                    device_pool_nbytes(config, Role.of(name, replica)) for replica in range(config.replicas)
                ),
            )
            for name, agent in config.agents.items()
        }

    @property
    def num_micro_batches(self) -> int:
        """Micro-batches of one replica in a step."""
        training = self.config.training
        return training.batch_size // (self.config.replicas * training.micro_batch_size)

    @cached_property
    def devices(self) -> dict[str, dict[Phase, MemoryParts]]:
        """The parts of each device's memory in each phase, over all its roles."""
        on: dict[str, list[dict[Phase, MemoryParts]]] = {}
        for replica in range(self.config.replicas):
            for name, agent in self.config.agents.items():
                on.setdefault(agent.device(replica), []).append(self.roles[name].phases())
        return {
            device: {phase: added(each[phase] for each in roles) for phase in PHASES}
            for device, roles in sorted(on.items(), key=_number)
        }

    def largest(self, device: str) -> tuple[Phase, MemoryParts]:
        """The phase in which a device needs most."""
        return max(self.devices[device].items(), key=lambda item: item[1].total)

    def memory_nbytes(self, device: str) -> int:
        """The memory of a device, or of the host for `cpu`."""
        return self.gpus[device].nbytes if device in self.gpus else psutil.virtual_memory().total

    @cached_property
    def time(self) -> StepTime | None:
        """The expected step time; None on the CPU, on unknown GPUs, and where a kind does not tell its cost."""
        rates = self._rates()
        if rates is None or None in self.costs.values():
            return None
        stages, has_backward = [], False
        for name in self.config.chain_names:
            cost, role, agent = self.costs[name], self.roles[name], self.config.agents[name]
            assert cost is not None
            has_backward = has_backward or role.num_trained > 0
            devices = tuple(agent.device(replica) for replica in range(self.config.replicas))
            call = call_seconds(cost.step, rates)
            stages.append(TimedStage(devices, call, has_backward, reduction_seconds(role, rates)))
        return step_time(stages, num_micro_batches=self.num_micro_batches, max_in_flight=self.config.max_in_flight)

    def _rates(self) -> GpuRates | None:
        """The rates of the slowest GPU; None if a role is on the CPU, or on a GPU that nothing is known about."""
        found = [self.gpus[device].rates if device in self.gpus else None for device in self.devices]
        known = [rates for rates in found if rates is not None]
        return min(known, key=lambda rates: rates.matmul) if len(known) == len(found) else None

    @property
    def samples_s(self) -> float | None:
        """The expected time of the samples before training, and of those after it; None as for `time`."""
        rates = self._rates()
        if rates is None or self.time is None or not self.config.samples.enabled:
            return None
        costs = [cost for cost in self.costs.values() if cost is not None]
        num_prompts = -(-self.config.samples.num_prompts // self.config.replicas)
        return num_prompts * sum(call_seconds(cost.sample, rates).forward_s for cost in costs)

    def check_memory(self) -> None:
        """Refuse a job that needs more than 92 % of a device.

        Raises:
            PlacementError: names the device, the phase, its parts and what to change.
        """
        for device in self.devices:
            phase, parts = self.largest(device)
            room = self.memory_nbytes(device)
            if parts.total > FULL_SHARE * room:
                gpu = self.gpus.get(device)
                what = "this machine" if gpu is None else gpu.name + (" (assumed)" if gpu.is_assumed else "")
                shares = sorted(asdict(parts).items(), key=lambda part: -part[1])
                largest = ", ".join(f"{name} {format_nbytes(nbytes)}" for name, nbytes in shares[:3])
                raise PlacementError(
                    f"{device}: the phase `{phase}` needs {format_nbytes(parts.total)} ({largest}), more than "
                    f"{FULL_SHARE:.0%} of the {format_nbytes(room)} of {what}: use more replicas, put agents on other "
                    "devices, switch gradient checkpointing on, or lower micro_batch_size"
                )

    @property
    def samples_per_second(self) -> float | None:
        """Training samples a second; None as for `time`."""
        return None if self.time is None else self.config.training.batch_size / self.time.step_s


def _number(item: tuple[str, object]) -> tuple[str, int]:
    """Order `cuda:10` after `cuda:9`."""
    kind, _, index = item[0].partition(":")
    return kind, int(index or 0)
