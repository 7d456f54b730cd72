"""The memory of one agent's server in every phase of a job."""

from __future__ import annotations

from dataclasses import dataclass, replace

from mora_environment.cost import AgentCost, CallCost

from mora_launch.config.agent_config import AgentConfig
from mora_launch.environments.agent_options import CheckedOptions
from mora_launch.planning.memory_parts import MemoryParts, Phase

MASTER_NBYTES = 4  # of each trained parameter, as all that follow
MOMENTS_NBYTES = 8  # of AdamW; SGD has none
EMA_NBYTES = 4
_GRADIENT_NBYTES = 4  # sums are float32, whatever the type of the weights
_MAX_BUCKET_NUM_ELEMENTS = 500_000_000  # of DeepSpeed's reduction
_EMA_PIECE_NBYTES = 64 << 20  # of the average, on its way to rank 0
_GPU_CONTEXT_NBYTES = 1_000_000_000  # of CUDA, cuBLAS and cuDNN
_NCCL_NBYTES = 500_000_000
_CPU_CONTEXT_NBYTES = 900_000_000  # of a process with torch, DeepSpeed and a model library


@dataclass(frozen=True)
class RoleMemory:
    """What decides about the memory of an agent's server.

    Args:
        cost: None if its kind does not tell; its activations count as nothing.
        num_graphs: graphs that wait for their backward at one time, at most.
    """

    agent: AgentConfig
    checked: CheckedOptions
    cost: AgentCost | None
    num_replicas: int
    num_graphs: int
    is_on_gpu: bool
    pool_nbytes: int = 0  # of tensors that a neighbour reads in GPU memory

    @property
    def num_trained(self) -> int:
        """Number of parameters that train; of adapters and single layers only if the kind tells its cost."""
        if not self.checked.has_optimizer or self.agent.trainable.scope == "none":
            return 0
        if self.cost is not None:
            return self.cost.num_trained
        whole = self.agent.trainable.scope == "all"
        return sum(c.num_parameters for c in self.checked.components if c.trainable) if whole else 0

    @property
    def weights_nbytes(self) -> int:
        """The weights that stay on the device while the job trains."""
        return sum(c.num_parameters * c.dtype_nbytes for c in self.checked.components if not c.is_unloaded)

    @property
    def unloaded_nbytes(self) -> int:
        """The weights that leave the device before the first step."""
        return sum(c.num_parameters * c.dtype_nbytes for c in self.checked.components if c.is_unloaded)

    @property
    def shard_nbytes(self) -> int:
        """One replica's share of master weights, moments and average."""
        return self._optimizer_nbytes + self._ema_nbytes

    @property
    def _optimizer_nbytes(self) -> int:
        return (MASTER_NBYTES + self._moments_nbytes) * self.num_trained // self.num_replicas

    @property
    def _moments_nbytes(self) -> int:
        return MOMENTS_NBYTES if self.agent.optimizer.kind == "adamw" else 0

    @property
    def _ema_nbytes(self) -> int:
        has_average = self.agent.optimizer.ema_decay is not None
        return EMA_NBYTES * self.num_trained // self.num_replicas if has_average else 0

    def phases(self) -> dict[Phase, MemoryParts]:
        """The parts of each phase."""
        cost = self.cost or AgentCost()
        static = self._static()
        return {
            "preparation": self._preparation(static, cost),
            "sampling": replace(static, graphs=cost.sample.peak_nbytes),
            "step": self._step(static, cost),
            "reduction": self._reduction(static),
            "checkpoint": replace(static, buffers=static.buffers + self._ema_piece_nbytes),
        }

    @property
    def _ema_piece_nbytes(self) -> int:
        """A piece of the average that another replica sends; a single replica has all of it."""
        return min(_EMA_PIECE_NBYTES, self._ema_nbytes) if self.num_replicas > 1 else 0

    def _static(self) -> MemoryParts:
        context = _CPU_CONTEXT_NBYTES
        if self.is_on_gpu:
            context = _GPU_CONTEXT_NBYTES + (_NCCL_NBYTES if self.num_replicas > 1 and self.num_trained else 0)
        return MemoryParts(
            weights=self.weights_nbytes, optimizer=self._optimizer_nbytes, ema=self._ema_nbytes,
            buffers=self.pool_nbytes, context=context,
        )  # fmt: skip

    def _preparation(self, static: MemoryParts, cost: AgentCost) -> MemoryParts:
        """Text encoders are loaded first, then targets are encoded; moments do not exist before the first step."""
        masters = MASTER_NBYTES * self.num_trained // self.num_replicas
        texts = replace(static, optimizer=masters, weights=static.weights + self.unloaded_nbytes)
        targets = replace(static, optimizer=masters, graphs=cost.prepare.peak_nbytes)
        return max(texts, targets, key=lambda parts: parts.total)

    def _step(self, static: MemoryParts, cost: AgentCost) -> MemoryParts:
        largest = cost.num_largest * (self._trained_dtype_nbytes + _GRADIENT_NBYTES)  # a gradient and its float32 copy
        return replace(
            static,
            gradients=_GRADIENT_NBYTES * self.num_trained,
            graphs=self._graphs_nbytes(cost.step),
            buffers=static.buffers + (largest if self.num_trained else 0),
        )

    def _graphs_nbytes(self, call: CallCost) -> int:
        if self.agent.recompute:  # only inputs wait
            return call.peak_nbytes
        return (self.num_graphs - 1) * call.graph_nbytes + call.peak_nbytes

    def _reduction(self, static: MemoryParts) -> MemoryParts:
        """All gradients and this replica's float32 share of the averages, with one bucket on its way."""
        if not self.num_trained:
            return static
        bucket = _GRADIENT_NBYTES * min(self.num_trained, _MAX_BUCKET_NUM_ELEMENTS)
        share = _GRADIENT_NBYTES * self.num_trained // self.num_replicas
        return replace(static, gradients=_GRADIENT_NBYTES * self.num_trained, buffers=static.buffers + bucket + share)

    @property
    def _trained_dtype_nbytes(self) -> int:
        return max((c.dtype_nbytes for c in self.checked.components if c.trainable), default=4)

    @property
    def host_checkpoint_nbytes(self) -> int:
        """Copies of one replica's share, on the host, while a checkpoint is written."""
        return self.shard_nbytes

    @property
    def first_host_checkpoint_nbytes(self) -> int:
        """Copies of the weights and of the whole average, which only the first replica writes."""
        if not self.checked.has_optimizer:
            return 0
        module = sum(c.num_parameters * c.dtype_nbytes for c in self.checked.components if c.trainable)
        average = EMA_NBYTES * self.num_trained if self._ema_nbytes else 0
        return module + average
