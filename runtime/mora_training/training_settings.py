"""Settings of a role's optimizer. Torch-free, because the launcher reads them too."""

from __future__ import annotations

from typing import Literal

from mora_runtime.rpc.server_settings import ServerSettings
from mora_runtime.schema import Settings

ADAPTER_FILE = "adapter_model.safetensors"  # of a module whose trainable scope is `lora`


class GroupSettings(Settings):
    """One process's membership in its data-parallel group (one group per role, one member per replica)."""

    rank: int
    world_size: int
    rendezvous: str  # file:///<run>/roles/... or tcp://host:port
    timeout_s: float = 600.0  # for a collective: how long a member waits for the others
    join_timeout_s: float = 600.0  # for the members to load their models and meet, at the start and in `load`


class OptimizerSettings(Settings):
    """Optimizer of one role. Learning rates are not settings: every commit contains them."""

    kind: Literal["adamw", "sgd"] = "adamw"  # adamw: decoupled weight decay
    betas: tuple[float, float] = (0.9, 0.999)  # of adamw
    eps: float = 1e-8  # of adamw
    weight_decay: float = 1e-2  # multiplied by the learning rate
    zero_stage: Literal[1, 2] = 2  # DeepSpeed's: 1 shards the optimizer's state over the replicas, 2 also the gradients
    ema_decay: float | None = None  # None = no moving average


class TrainableSettings(Settings):
    """Which parameters of one agent's module train."""

    # all parameters, LoRA adapters, those that `patterns` name, or none; z trains in any case
    scope: Literal["all", "lora", "patterns", "none"] = "all"
    patterns: tuple[str, ...] = ()  # shell patterns over parameter names, for scope "patterns"
    lora_rank: int = 8  # r, for scope "lora"
    lora_alpha: float = 8.0  # the adapters are scaled by lora_alpha / lora_rank
    lora_targets: tuple[str, ...] = ("to_q", "to_k", "to_v", "to_out.0")  # module name suffixes, for scope "lora"


class OptimizerAgentSettings(Settings):
    """How one role trains: resolved by the launcher, the same on every replica except for the rank."""

    group: GroupSettings
    optimizer: OptimizerSettings = OptimizerSettings()
    trainable: TrainableSettings = TrainableSettings()


class TrainingServerSettings(ServerSettings):
    """Settings of a server whose agent may train."""

    training: OptimizerAgentSettings | None = None  # None = serves calls without an optimizer
