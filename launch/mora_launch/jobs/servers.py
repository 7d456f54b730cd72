"""Starting the servers of a configuration: one resolved settings file and one process for each agent and replica.

Used by everything that starts servers: training, serving, rounds and their judges, the benchmarks.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypedDict, Unpack

from mora_runtime.errors import SettingsError
from mora_runtime.limits import LONGEST_SPIN_NS
from mora_runtime.process.role import Role
from mora_runtime.process.role_process import RoleProcess
from mora_runtime.process.run_directory import RunDirectory
from mora_runtime.process.supervisor import Supervisor
from mora_runtime.rpc.server_settings import AgentSettings, AllowedAdapters
from mora_training.training_settings import GroupSettings, OptimizerAgentSettings, TrainingServerSettings
from rich.console import Console

from mora_launch.config.agent_config import AgentConfig
from mora_launch.config.device_tensors import device_pool_nbytes
from mora_launch.config.train_config import TrainConfig
from mora_launch.environments.agent_options import CheckedOptions, check_options
from mora_launch.environments.build import ensure_environments
from mora_launch.environments.catalog import environments_of
from mora_launch.environments.environment import Environment
from mora_launch.environments.tiny_models import ensure_tiny_models
from mora_launch.environments.venvs import CONTROL, ROOT
from mora_launch.jobs.cuda_driver import ask_driver
from mora_launch.jobs.resources import available_cores, divide_memory, near_cores, pin_cores

TRACES = "trace"  # folder of a run
_CPU_GROUP_TIMEOUT_S = 600.0
_GPU_GROUP_TIMEOUT_S = 120.0  # collectives take seconds there; a hang is noticed only by this timeout
_SLACK_S = 60.0  # so that the launcher's deadline for a slow start passes first, and names the role


def check_agents(config: TrainConfig, console: Console) -> dict[str, CheckedOptions]:
    """Build missing environments and tiny models, then have every agent's options checked.

    Raises:
        MoraError: an option is invalid, or an environment could not answer.
    """
    environments = environments_of(config)
    used = {agent.environment: environments[agent.environment] for _, agent in config.agents.items()}
    ensure_environments(used.values())
    ensure_tiny_models(config, console)
    with ThreadPoolExecutor() as pool:
        pending = {
            name: pool.submit(check_options, name, agent, used[agent.environment])
            for name, agent in config.agents.items()
        }
        return {name: each.result() for name, each in pending.items()}


class ServerGroup:
    """All servers of one configuration in one run directory.

    Args:
        train: False starts servers without optimizer and data-parallel group.
        traces: folder for the servers' traces; None disables tracing.
        adapters: by agent, LoRA adapters that a call may ask for.
    """

    def __init__(
        self,
        config: TrainConfig,
        checked: Mapping[str, CheckedOptions],
        directory: RunDirectory,
        *,
        train: bool = True,
        traces: Path | None = None,
        adapters: Mapping[str, Sequence[AllowedAdapters]] | None = None,
    ) -> None:
        if train:
            _check_no_adapters(config)
        self._config = config
        self._environments = environments_of(config)
        self._checked = checked
        self._directory = directory
        self._train = train
        self._traces = traces
        self._adapters = adapters or {}
        self._memory = divide_memory(config)
        self._cores = pin_cores(config, available_cores())
        has_gpus = any(device != "cpu" for agent in config.agents.values() for device in agent.devices)
        self._near = near_cores(config, ask_driver().gpus, self._cores) if has_gpus else {}

    @property
    def lock_hashes(self) -> dict[str, str]:
        """By agent, the hash of the environment in which its servers run."""
        return {name: self._environments[each.environment].lock_hash for name, each in self._config.agents.items()}

    @property
    def environment_hashes(self) -> dict[str, str]:
        """By name, the hash of the launcher's environment and of every environment that an agent uses."""
        names = dict.fromkeys(agent.environment for agent in self._config.agents.values())
        return {CONTROL.name: CONTROL.lock_hash, **{name: self._environments[name].lock_hash for name in names}}

    @property
    def roles(self) -> list[Role]:
        """Every server of the configuration, replica by replica."""
        return [
            Role.of(name, replica)
            for replica in range(self._config.replicas)
            for name, _ in self._config.agents.items()
        ]

    def start(self, supervisor: Supervisor, attempt: int, generation: int, roles: Sequence[Role]) -> list[RoleProcess]:
        """Write the settings and start the servers; wait for them with `supervisor.wait_ready`.

        Args:
            attempt: a number that is unique in the run, because a rendezvous file must never be used twice.
            generation: generation of the started roles.
            roles: which servers to start.
        """
        agents = dict(self._config.agents.items())
        return [self._start_one(supervisor, role, agents[role.name], attempt, generation) for role in roles]

    def _start_one(
        self, supervisor: Supervisor, role: Role, agent: AgentConfig, attempt: int, generation: int
    ) -> RoleProcess:
        environment = self._environments[agent.environment]
        training = (
            self._training(role, agent, attempt) if self._train and self._checked[role.name].has_optimizer else None
        )
        settings = server_settings(
            self._directory, role.name, agent, environment, self._checked[role.name].options, replica=role.replica,
            generation=generation,
            cpu_affinity=self._cores.get(role) or self._near.get(role),
            spin_ns=LONGEST_SPIN_NS if role in self._cores else None,  # no other server uses its cores
            training=training,
            ends_when_out_of_memory=training is not None, cudnn_benchmark=training is not None,
            arena_budget_nbytes=self._memory[role], spill_budget_nbytes=self._config.spill_nbytes,
            device_pool_nbytes=device_pool_nbytes(self._config, role) if self._train else 0,
            activation_budget_nbytes=agent.activation_nbytes, recompute=agent.recompute,
            trace=trace_file(self._traces, role), seed=self._config.seed,
            allowed_adapters=self._adapters.get(role.name, ()),
        )  # fmt: skip
        return start_server(supervisor, self._directory, settings, environment)

    def _training(self, role: Role, agent: AgentConfig, attempt: int) -> OptimizerAgentSettings:
        group = GroupSettings(
            rank=role.replica,
            world_size=self._config.replicas,
            rendezvous=rendezvous(self._directory, role.name, attempt),
            timeout_s=_CPU_GROUP_TIMEOUT_S if agent.device(role.replica) == "cpu" else _GPU_GROUP_TIMEOUT_S,
            join_timeout_s=self._config.start_deadline_s + _SLACK_S,
        )
        return OptimizerAgentSettings(group=group, optimizer=agent.optimizer, trainable=agent.trainable)


def _check_no_adapters(config: TrainConfig) -> None:
    for name, agent in config.agents.items():
        if agent.adapters is not None:
            raise SettingsError(
                f"agents.{name}.adapters: adapters are loaded to generate, and cannot be trained on; set "
                f"agents.{name}.weights to what `./mora checkpoint export --format merged` writes"
            )


class ServerResources(TypedDict, total=False):
    """Resources and training of a server; fields of `TrainingServerSettings`."""

    generation: int
    cpu_affinity: tuple[int, ...] | None
    spin_ns: int | None
    training: OptimizerAgentSettings | None
    ends_when_out_of_memory: bool
    cudnn_benchmark: bool
    arena_budget_nbytes: int
    spill_budget_nbytes: int
    warm_nbytes: int
    device_pool_nbytes: int
    activation_budget_nbytes: int | None
    recompute: bool
    trace: str | None
    seed: int


def server_settings(
    directory: RunDirectory,
    name: str,
    agent: AgentConfig,
    environment: Environment,
    options: Mapping[str, Any],
    *,
    replica: int = 0,
    allowed_adapters: Sequence[AllowedAdapters] = (),
    **resources: Unpack[ServerResources],
) -> TrainingServerSettings:
    """Settings of one server of one agent.

    Args:
        options: the agent's options, checked by its environment.
        allowed_adapters: LoRA adapters that a call may ask for.
        resources: fields that differ from their default.
    """
    hosted = AgentSettings(
        kind=agent.kind, options=dict(options), adapters=agent.adapters, allowed_adapters=tuple(allowed_adapters)
    )
    return TrainingServerSettings(
        role=Role.of(name, replica), name=name, replica=replica, run_dir=str(directory.path),
        device=agent.device(replica), attention=agent.attention, tf32=agent.tf32, num_threads=agent.num_threads,
        environment=environment.name, lock_hash=environment.lock_hash,
        agents={name: hosted}, **resources,
    )  # fmt: skip


def start_server(
    supervisor: Supervisor, directory: RunDirectory, settings: TrainingServerSettings, environment: Environment
) -> RoleProcess:
    """Write a server's settings into its role's folder and start its process."""
    content = settings.model_dump(mode="json", exclude={"supervisor_fd"})
    path = write_json(directory.role_folder(settings.role) / "settings.json", content)
    return supervisor.start(
        settings.role,
        role_command(environment.python, environment.package, path),
        variables=child_variables(settings.num_threads, settings.device),
        output=directory.logs / f"{settings.role}.{settings.generation}.out",
        folder=ROOT,
        generation=settings.generation,
    )


def traces_folder(run: Path) -> Path:
    """Return the folder for traces of a run's roles, created if missing."""
    folder = run / TRACES
    folder.mkdir(exist_ok=True)
    return folder


def trace_file(traces: Path | None, role: str) -> str | None:
    """Return the path of a role's trace. A traced job never starts a role twice, so the name needs no generation."""
    return None if traces is None else str(traces / f"{role}.jsonl")


def rendezvous(directory: RunDirectory, group: str, attempt: int) -> str:
    """Return the rendezvous URL of a data-parallel group on this machine: a file in the run directory."""
    folder = directory.path / "rendezvous"
    folder.mkdir(exist_ok=True)
    return f"file://{folder.resolve()}/{group}-{attempt}"


def write_json(path: Path, content: dict[str, Any]) -> Path:
    """Write one resolved file and return its path."""
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")
    return path


def role_command(python: Path, module: str, settings: Path) -> list[str]:
    """Return the command of a role: its environment's interpreter, its package, its settings file."""
    return [str(python), "-m", module, "--settings", str(settings)]


def child_variables(num_threads: int, device: str) -> dict[str, str]:
    """Return the environment variables of a role that are added to the launcher's."""
    variables = {
        "OMP_NUM_THREADS": str(num_threads),
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TRANSFORMERS_VERBOSITY": "error",  # otherwise advice about packages fills the last lines of a log
        "PYTHONUNBUFFERED": "1",
        "TQDM_DISABLE": "1",  # otherwise progress bars of loading models fill the last lines of a log
        "KINETO_LOG_LEVEL": "6",  # otherwise torch's profiler prints to the terminal
    }
    if "HF_HUB_OFFLINE" not in os.environ:
        variables["HF_HUB_OFFLINE"] = "1"  # `mora models fetch` downloads, before anything starts
    # always said, because a value in the user's shell would put DeepSpeed on another device than the agent
    variables["DS_ACCELERATOR"] = device.partition(":")[0]
    if device != "cpu":
        # GPUs are numbered as in nvidia-smi, and as the launcher numbers them
        variables["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
        if not {"PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"} & set(os.environ):
            # graphs of many sizes come and go in a step, and would leave gaps in segments of fixed size
            variables["PYTORCH_ALLOC_CONF"] = "expandable_segments:True"
    if device == "cpu":
        # By default MKL's sums depend on the alignment of weights in memory. DeepSpeed packs weights into one flat
        # buffer, so gradients would differ in the last bits from those of one process, or after a resume.
        variables["MKL_CBWR"] = "AUTO,STRICT"
    return variables
