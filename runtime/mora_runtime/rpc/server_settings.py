"""Resolved settings of one server: the launcher writes them, and nothing else configures the server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from mora_runtime.limits import DEFAULT_ARENA_NBYTES, DEFAULT_SPILL_NBYTES, HEARTBEAT_TIMEOUT_S, WARM_NBYTES
from mora_runtime.schema import Settings, settings_from_argv

if TYPE_CHECKING:
    from typing_extensions import Self  # `typing` has it from Python 3.11 on

AttentionKernel = Literal["cudnn", "flash", "efficient", "math"]
Tf32 = Literal["none", "convolutions", "all"]  # "all": matrix products too
ATTENTION: tuple[AttentionKernel, ...] = ("cudnn", "flash", "efficient", "math")


class AllowedAdapters(Settings):
    """LoRA adapters that a call may ask for by name."""

    name: str
    file: str
    nbytes: int = Field(ge=1)
    sha256: str
    alpha: float
    prefix: str = ""  # of the names in the file, before those of the model's layers
    must_fit: bool = True  # False = left out if the model does not have their layers


class AgentSettings(Settings):
    """One agent that the server hosts; its options are checked by its environment."""

    kind: str
    options: dict[str, Any] = Field(default_factory=dict)
    adapters: str | None = None  # folder of LoRA adapters for its model
    allowed_adapters: tuple[AllowedAdapters, ...] = ()  # in their place, for calls that ask for them


class ServerSettings(Settings):
    """All settings of a server. Environments whose agents train read a subclass with more fields."""

    role: str  # agent.0
    name: str  # agent
    replica: int = 0
    generation: int = 1
    run_dir: str
    device: str = "cpu"
    ends_when_out_of_memory: bool = False  # of its GPU; see `ServerDevice`
    attention: tuple[AttentionKernel, ...] = Field(default=ATTENTION, min_length=1)  # this and the next: `gpu_kernels`
    tf32: Tf32 = "convolutions"
    cudnn_benchmark: bool = False  # for servers whose shapes stay the same
    num_threads: int = Field(default=1, ge=1)
    cpu_affinity: tuple[int, ...] | None = None  # cores for this role only
    spin_ns: int | None = Field(default=None, ge=0)  # longest spin for a message before it sleeps; see `Session.open`
    heartbeat_timeout_s: float = Field(default=HEARTBEAT_TIMEOUT_S, gt=0)  # of ZeroMQ; see `Session.open`
    environment: str = ""  # name and lock of the built environment, for WELCOME; empty if there is none
    lock_hash: str = ""
    agents: dict[str, AgentSettings] = Field(default_factory=dict)
    arena_budget_nbytes: int = Field(default=DEFAULT_ARENA_NBYTES, ge=1)
    spill_budget_nbytes: int = Field(default=DEFAULT_SPILL_NBYTES, ge=0)
    warm_nbytes: int = Field(default=WARM_NBYTES, ge=0)  # part of the arena that is allocated at start
    # memory on the GPU for tensors that other servers read there; 0 = tensors go through shared memory
    device_pool_nbytes: int = Field(default=0, ge=0)
    activation_budget_nbytes: int | None = Field(default=None, ge=0)  # of graphs that wait for their backward
    recompute: bool = False  # keep a forward's inputs instead of its graph, and run it again for the backward
    trace: str | None = None  # file for this process's trace
    seed: int = 0
    supervisor_fd: int | None = None

    @classmethod
    def from_argv(cls) -> Self:
        """Read `--settings FILE [--supervisor-fd N]`."""
        settings, descriptor = settings_from_argv(cls)
        return settings.model_copy(update={"supervisor_fd": descriptor})
