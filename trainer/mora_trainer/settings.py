"""Settings of a training job: the sections that a user writes, and the resolved file that one coordinator rank reads.

The launcher imports this module too, so it needs neither torch nor DeepSpeed.
"""

from __future__ import annotations

from typing import Literal

from mora_data.settings import ClipShape
from mora_environment.interface import Interface
from mora_runtime.schema import PositiveInt, Settings
from pydantic import Field, model_validator


class ModulationSettings(Settings):
    """The modulation embeddings z_i and factors alpha_i (paper section 3.2; readings in docs/paper.md)."""

    mode: Literal["learned", "random_init", "none"] = "learned"  # table 5: Mora, RI, without modulation
    # rows of z: one for each token of `text`, their mean, or one of a token that the vocabulary lacks
    rows: Literal["content", "mean", "new_token"] = "content"
    # factor of an agent's learning rate: norm of z / number of agents, its share of all norms, or 1
    alpha: Literal["norm", "share", "one"] = "norm"
    text: str = "[Mod]"  # what z is encoded from
    optimizer: Literal["adamw", "sgd"] = "adamw"  # of z


class PipelineSettings(Settings):
    """How the micro-batches of one step overlap. All settings give bit-identical gradients."""

    # Micro-batches between their first forward and last backward; 1 = no overlap, None = one more than the agents.
    max_in_flight: PositiveInt | None = None
    inputs_first: bool = False  # a server answers before it computes its parameters' gradients

    def in_flight(self, num_agents: int) -> int:
        """Most micro-batches in flight in a chain of this many agents."""
        return num_agents + 1 if self.max_in_flight is None else self.max_in_flight


class TrainingSettings(Settings):
    """The optimisation loop."""

    num_steps: PositiveInt = 12  # optimisation steps of the whole job
    batch_size: PositiveInt = 4  # samples per optimisation step, over all replicas and micro-batches
    micro_batch_size: PositiveInt = 1  # samples per pass through the chain on one replica
    clip_norm: float | None = 1.0  # over the gradients of all roles together; None = no clipping
    pipeline: PipelineSettings = PipelineSettings()
    schedule: Literal["constant", "cosine"] = "constant"  # of the learning rates after the warm-up
    num_warmup_steps: int = Field(default=0, ge=0)  # in which the learning rates rise from 0
    checkpoint_every: int = Field(default=4, ge=0)  # steps; 0 = only at the end
    keep_checkpoints: PositiveInt = 3  # the newest ones
    call_deadline_s: float = Field(default=600.0, gt=0.0)  # of one call to a server
    max_consecutive_skips: PositiveInt = 10  # non-finite steps in a row after which the job ends


class SampleSettings(Settings):
    """Samples generated before and after training."""

    enabled: bool = True  # generate them
    num_prompts: PositiveInt = 1  # the first ones of the data set
    seed: int = 0  # of the noise they are made from
    # Dimensions of `evaluation` to measure on them when the job is done, for curves in TensorBoard: [motion_smoothness]
    metrics: tuple[str, ...] = ()


class StageSettings(Settings):
    """The coordinator's settings of one agent of the chain."""

    name: str
    server: str  # its role: name and replica
    lock_hash: str  # of the environment in which the server must run
    interface: Interface
    loss_weight: float = Field(ge=0.0)  # of its own loss in L; 0 = it adds none
    has_optimizer: bool = True  # its server has an optimizer and checkpoints; False for a critic
    trains: bool = True
    learning_rate: float = Field(ge=0.0)
    modulation_learning_rate: float = Field(ge=0.0)


class CoordinatorSettings(Settings):
    """The resolved settings of one coordinator rank; it reads nothing else."""

    run_dir: str
    replica: int
    generation: int = 1  # increases with every restart of the job's roles
    num_replicas: PositiveInt
    rendezvous: str
    num_threads: PositiveInt = 1
    seed: int
    dataset: str  # JSON lines, checked by the launcher
    clip: ClipShape
    chain: tuple[StageSettings, ...] = Field(min_length=1)  # in the order of the forward
    modulation: ModulationSettings
    training: TrainingSettings
    samples: SampleSettings
    shuffle: bool = True
    resume: bool = False
    arena_nbytes: PositiveInt  # budget of this rank's own tensors in shared memory
    spill_nbytes: int = Field(ge=0)
    lock_hashes: dict[str, str]
    trace: str | None = None  # file for this process's trace
    torch_trace_step: int | None = None  # the step that torch's profiler records in every role, counted from 0

    @model_validator(mode="after")
    def _batch_divides(self) -> CoordinatorSettings:
        check_batch(self.training, self.num_replicas)
        return self


def check_batch(training: TrainingSettings, num_replicas: int) -> None:
    """Refuse a batch that cannot be divided equally among replicas and micro-batches (ValueError)."""
    unit = num_replicas * training.micro_batch_size
    if training.batch_size % unit:
        raise ValueError(
            f"batch_size {training.batch_size} is not a multiple of replicas x micro_batch_size = "
            f"{num_replicas} x {training.micro_batch_size}; set batch_size to a multiple of {unit}"
        )
