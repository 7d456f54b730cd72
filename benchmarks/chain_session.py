"""A running chain to measure: real servers, a coordinator in this process, and the same chain in a single process.

Runs in the control environment. Used by `benchmarks.parity`, `benchmarks.train` and the integration tests.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from mora_data.dataset import read_dataset, resolve_dataset
from mora_data.sample import Sample
from mora_data.sample_order import SampleOrder
from mora_launch.config.train_config import TrainConfig
from mora_launch.environments.agent_options import CheckedOptions
from mora_launch.environments.catalog import Environments, environments_of
from mora_launch.environments.environment import Environment
from mora_launch.environments.venvs import ROOT
from mora_launch.jobs.chain import check_chain, stage_settings
from mora_launch.jobs.servers import ServerGroup, check_agents, child_variables, rendezvous
from mora_runtime import Client, RunDirectory, Session
from mora_runtime.process.supervisor import Supervisor
from mora_trainer.chain.micro_batch import MicroBatch
from mora_trainer.chain.remote_chain import RemoteChain
from mora_trainer.chain.stage import connected_stages
from mora_trainer.chain.stopwatch import Stopwatch
from mora_trainer.modulation import Modulation
from mora_trainer.preparation import Corpus, initial_embeddings
from mora_trainer.settings import StageSettings
from mora_trainer.step import JointStep, LearningRates, StepReport
from mora_trainer.terminal import Console
from mora_training.process_group import join_group
from mora_training.training_settings import GroupSettings
from safetensors.torch import save_file

DEADLINE_S = 300.0
_TEXT_CACHED_KIND = "opensora"  # see `benchmarks.local_opensora`


@dataclass
class ChainSession:
    """Servers of one replica, connected; the coordinator's parts as the trainer builds them."""

    config: TrainConfig  # of the chain's agents only
    directory: RunDirectory
    session: Session
    settings: tuple[StageSettings, ...]
    clients: dict[str, Client]  # of the agents that have an optimizer
    corpus: Corpus
    samples: list[Sample]
    embeddings: dict[str, torch.Tensor]
    chain: RemoteChain
    joint_step: JointStep
    modulation: Modulation | None
    options: dict[str, dict[str, Any]]

    def batches(self, step: int = 0) -> list[MicroBatch]:
        """The micro-batches of one step, divided as the trainer does."""
        training = self.config.training
        order = self._order()
        return [self.corpus.micro_batch(order, places) for places in self._places(step, training.micro_batch_size)]

    def _order(self) -> SampleOrder:
        return SampleOrder(len(self.samples), seed=self.config.seed, shuffle=self.config.data.shuffle)

    def _places(self, step: int, size: int) -> list[range]:
        first = step * self.config.training.batch_size
        return [range(start, start + size) for start in range(first, first + self.config.training.batch_size, size)]

    def rates(self) -> LearningRates:
        """Base learning rates of the configuration."""
        return LearningRates(
            {stage.name: stage.learning_rate for stage in self.settings},
            {stage.name: stage.modulation_learning_rate for stage in self.settings},
        )

    def accumulate(self, batches: Sequence[MicroBatch]) -> dict[str, torch.Tensor]:
        """Forward and backward of all micro-batches; parameter gradients stay in the servers, dL/dz_i are returned."""
        gradients = {name: torch.zeros_like(z) for name, z in self.embeddings.items()}
        for result in self.chain.run(batches, self.embeddings, Stopwatch()):
            for name, gradient in result.gradients.items():
                gradients[name] += gradient
        return gradients

    def step(self, step: int, batches: Sequence[MicroBatch] | None = None) -> StepReport:
        """One whole optimisation step."""
        return self.joint_step.run(step, self.batches(step) if batches is None else batches, self.rates())

    def write_spec(self, folder: Path) -> Path:
        """Write what the single-process chain needs to do the first step on the same numbers; returns its path."""
        tensors = {f"z.{name}": z for name, z in self.embeddings.items()}
        for index, sample in enumerate(self.samples):
            tensors[f"clip.{index}"] = torch.from_numpy(sample.clip(self.config.clip).copy())
        save_file(tensors, str(folder / "tensors.safetensors"))
        environments = environments_of(self.config)
        first = self.config.agents[self.settings[0].name]
        spec = {
            "python": str(environments[first.environment].python),
            "python_path": self._python_path(environments),
            "num_threads": first.num_threads,
            "device": self._common_device(),
            "agents": [self._agent_spec(stage, environments) for stage in self.settings],
            "tensors": str(folder / "tensors.safetensors"),
            "prompts": [sample.prompt for sample in self.samples],
            "batches": self._batch_specs(),
            "clip_norm": self.config.training.clip_norm,
            "learning_rates": self.rates().parameters,
            "modulation_learning_rates": self.rates().embeddings,
        }
        path = folder / "spec.json"
        path.write_text(json.dumps(spec), encoding="utf-8")
        return path

    def _common_device(self) -> str:
        """The device of all agents, on which the single process computes."""
        devices = {self.config.agents[stage.name].device(0) for stage in self.settings}
        if len(devices) > 1:
            raise ValueError(
                f"expected all agents on one device, because one process computes the whole chain; the configuration "
                f"has {', '.join(sorted(devices))}: set agents.NAME.devices"
            )
        return devices.pop()

    def _python_path(self, environments: Environments) -> list[str]:
        """Folders from which the single process imports what the first agent's interpreter does not have."""
        names = dict.fromkeys(self.config.agents[stage.name].environment for stage in self.settings)
        first, *others = (environments[name] for name in names)
        return [str(ROOT), *(_source_folder(each) for each in others if each.python != first.python)]

    def _agent_spec(self, stage: StageSettings, environments: Environments) -> dict[str, Any]:
        agent = self.config.agents[stage.name]
        return {
            "name": stage.name,
            "package": environments[agent.environment].package,
            "kind": agent.kind,
            "options": self.options[stage.name],
            "prompt_keys": self.corpus.keys[stage.name],
            "loss_weight": stage.loss_weight,
            "trains": stage.trains,
        }

    def _batch_specs(self) -> list[dict[str, Any]]:
        """Samples and seeds of the micro-batches of the first step."""
        order = self._order()
        places = self._places(0, self.config.training.micro_batch_size)
        return [
            {"samples": [order.sample_index(place) for place in each], "seeds": dict(batch.seeds)}
            for each, batch in zip(places, self.batches(), strict=True)
        ]


def _source_folder(environment: Environment) -> str:
    if environment.package_folder is None:
        raise ValueError(
            f"environment {environment.name}: expected the source of {environment.package} in a folder, which one "
            "process could import; it is an interpreter that exists, so the chain cannot run in one process"
        )
    return str(environment.package_folder.parents[environment.package.count(".")])


@contextlib.contextmanager
def chain_session(config: TrainConfig, path: Path, *, traces: Path | None = None) -> Iterator[ChainSession]:
    """Start the servers of `config` (one replica), connect as coordinator, yield; then end everything.

    Args:
        traces: folder for the servers' traces; None switches tracing off.
    """
    if config.replicas != 1:
        raise ValueError(f"a chain session drives one replica, but the configuration has {config.replicas}")
    console = Console(stderr=True)
    config = _with_text_cache(config.of_chain(), path / "text-cache")
    checked = check_agents(config, console)
    check_chain(config, checked)
    with RunDirectory.create(path, lock=True) as directory, Supervisor(console.print) as supervisor:
        attempt = time.time_ns()
        group = ServerGroup(config, checked, directory, traces=traces)
        servers = group.start(supervisor, attempt, 1, group.roles)
        supervisor.wait_ready(servers, deadline_s=DEADLINE_S)
        join_group(
            GroupSettings(rank=0, world_size=1, rendezvous=rendezvous(directory, "coordinator", attempt)),
            torch.device("cpu"),
        )
        try:
            with Session.open(directory, "coordinator.0") as session:
                yield _connect(config, directory, session, checked, group.lock_hashes)
        finally:
            dist.destroy_process_group()


def _with_text_cache(config: TrainConfig, folder: Path) -> TrainConfig:
    """The configuration with the encoder rows of agents whose text encoder the single process lacks in this folder."""
    agents = dict(config.agents)
    for name, agent in config.agents.items():
        if agent.kind == _TEXT_CACHED_KIND:
            agents[name] = agent.model_copy(update={"options": {**agent.options, "text_cache": str(folder)}})
    return config.model_copy(update={"agents": agents})


def _connect(
    config: TrainConfig,
    directory: RunDirectory,
    session: Session,
    checked: Mapping[str, CheckedOptions],
    lock_hashes: Mapping[str, str],
) -> ChainSession:
    settings = stage_settings(config, checked, lock_hashes, 0)
    stages = connected_stages(session, settings, deadline_s=DEADLINE_S)
    clients = {stage.name: stage.client for stage in stages if stage.has_optimizer}
    dataset = resolve_dataset(config.data, config.clip, directory.path / "data", config.chain_names)
    samples = read_dataset(dataset)
    corpus = Corpus(session, stages, samples, config.clip, deadline_s=DEADLINE_S)
    embeddings = initial_embeddings(stages, config.modulation, seed=config.seed)
    modulation = Modulation(embeddings, config.modulation.alpha, config.modulation.optimizer) if embeddings else None
    chain = RemoteChain(stages, pipeline=config.training.pipeline)
    joint_step = JointStep(chain, clients, modulation, clip_norm=config.training.clip_norm, deadline_s=DEADLINE_S)
    options = {name: found.options for name, found in checked.items()}
    return ChainSession(
        config, directory, session, settings, clients, corpus, samples, embeddings, chain, joint_step, modulation,
        options,
    )  # fmt: skip


class SingleProcessTwin:
    """The single-process chain as a child process in the first agent's environment; a context manager."""

    def __init__(self, spec: Path) -> None:
        content = json.loads(spec.read_text(encoding="utf-8"))
        python_path = os.pathsep.join(content["python_path"])
        variables = {
            **os.environ, **child_variables(content["num_threads"], content["device"]), "PYTHONPATH": python_path
        }  # fmt: skip
        self._process = subprocess.Popen(
            [content["python"], "-m", "benchmarks.single_process", str(spec)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=variables,
            cwd=ROOT,
        )
        self._read()

    def __enter__(self) -> SingleProcessTwin:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(30)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def ask(self, **command: Any) -> dict[str, Any]:
        """Send one command and return its answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                answer: dict[str, Any] = json.loads(line)
                return answer
        raise RuntimeError(f"the single-process chain ended with exit code {self._process.wait(30)}; see its messages")
