"""A running chain to measure: real servers, a coordinator in this process, and the same chain in a single process.

Runs in the control environment. Used by `benchmarks.parity`, `benchmarks.train` and the integration tests.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from mora_data.dataset import Sample, SampleOrder, read_dataset, resolve_dataset
from mora_launch.config.train_config import TrainConfig
from mora_launch.environments.venvs import ENVIRONMENTS, ROOT
from mora_launch.jobs.servers import ServerGroup, check_agents, child_variables, rendezvous
from mora_runtime import Client, RunDirectory, Session
from mora_runtime.process.supervisor import Supervisor
from mora_trainer.chain import AGENTS, MicroBatch, RemoteChain, Stopwatch
from mora_trainer.modulation import Modulation
from mora_trainer.preparation import Corpus, initial_embeddings
from mora_trainer.step import JointStep, LearningRates, StepReport
from mora_trainer.terminal import Console
from mora_training.process_group import join_group
from mora_training.training_settings import GroupSettings
from safetensors.torch import save_file

DEADLINE_S = 300.0


@dataclass
class ChainSession:
    """Servers of one replica, connected; the coordinator's parts as the trainer builds them."""

    config: TrainConfig
    directory: RunDirectory
    session: Session
    clients: dict[str, Client]
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
        agents = dict(self.config.agents.items())
        return LearningRates(
            {name: agents[name].learning_rate for name in AGENTS},
            {name: agents[name].modulation_learning_rate for name in AGENTS},
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
        order, size = self._order(), self.config.training.micro_batch_size
        tensors = {f"z.{name}": z for name, z in self.embeddings.items()}
        for index, sample in enumerate(self.samples):
            tensors[f"clip.{index}"] = torch.from_numpy(sample.clip(self.config.clip).copy())
        save_file(tensors, str(folder / "tensors.safetensors"))
        cache = Path(self.options["video"]["text_cache"])
        agents = dict(self.config.agents.items())
        spec = {
            "num_threads": self.config.agents.image.num_threads,
            "image_options": self.options["image"],
            "video_options": self.options["video"],
            "tensors": str(folder / "tensors.safetensors"),
            "prompts": [sample.prompt for sample in self.samples],
            "text_rows": [str(cache / f"{key}.safetensors") for key in self.corpus.keys["video"]],
            "batches": [
                {
                    "samples": [order.sample_index(place) for place in places],
                    "seeds": [order.noise_seed(place) for place in places],
                }
                for places in self._places(0, size)
            ],
            "clip_norm": self.config.training.clip_norm,
            "learning_rates": {name: agents[name].learning_rate for name in AGENTS},
            "modulation_learning_rate": self.config.agents.image.modulation_learning_rate,
        }
        path = folder / "spec.json"
        path.write_text(json.dumps(spec), encoding="utf-8")
        return path


@contextlib.contextmanager
def chain_session(config: TrainConfig, path: Path, *, traces: Path | None = None) -> Iterator[ChainSession]:
    """Start the servers of `config` (one replica), connect as coordinator, yield; then end everything.

    Args:
        traces: folder for the servers' traces; None switches tracing off.
    """
    if config.replicas != 1:
        raise ValueError(f"a chain session drives one replica, but the configuration has {config.replicas}")
    console = Console(stderr=True)
    cache = path / "text-cache"
    video = config.agents.video.model_copy(
        update={"options": {**config.agents.video.options, "text_cache": str(cache)}}
    )
    config = config.model_copy(update={"agents": config.agents.model_copy(update={"video": video})})
    checked = check_agents(config, console)
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
                options = {name: found.options for name, found in checked.items()}
                yield _connect(config, directory, session, options)
        finally:
            dist.destroy_process_group()


def _connect(
    config: TrainConfig, directory: RunDirectory, session: Session, options: dict[str, dict[str, Any]]
) -> ChainSession:
    clients = {name: session.connect(f"{name}.0", deadline_s=DEADLINE_S) for name in AGENTS}
    samples = read_dataset(resolve_dataset(config.data, config.clip, directory.path / "data"))
    corpus = Corpus(session, clients, samples, config.clip, needs_frames=False, deadline_s=DEADLINE_S)
    embeddings = initial_embeddings(clients, config.modulation, seed=config.seed, deadline_s=DEADLINE_S)
    modulation = Modulation(embeddings, config.modulation.alpha, config.modulation.optimizer) if embeddings else None
    chain = RemoteChain(
        clients["image"],
        clients["video"],
        image_loss_weight=0.0,
        deadline_s=DEADLINE_S,
        pipeline=config.training.pipeline,
    )
    joint_step = JointStep(chain, clients, modulation, clip_norm=config.training.clip_norm, deadline_s=DEADLINE_S)
    return ChainSession(
        config, directory, session, clients, corpus, samples, embeddings, chain, joint_step, modulation, options
    )


class SingleProcessTwin:
    """The single-process chain as a child process in the sd3 environment; a context manager."""

    def __init__(self, spec: Path) -> None:
        num_threads = json.loads(spec.read_text(encoding="utf-8"))["num_threads"]
        python_path = f"{ROOT / 'env_opensora'}{os.pathsep}{ROOT}"
        variables = {**os.environ, **child_variables(num_threads, "cpu"), "PYTHONPATH": python_path}
        self._process = subprocess.Popen(
            [str(ENVIRONMENTS["sd3"].python), "-m", "benchmarks.single_process", str(spec)],
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
