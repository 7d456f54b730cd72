"""DeepSpeed behind a two-phase step; the only file that uses DeepSpeed's engine.

Used by `OptimizerAgent` in servers (an agent's parameters) and by the coordinator (the modulation embeddings). Backward
passes only accumulate gradients locally; nothing is communicated until `prepare`, so a micro-batch that fails on one
replica leaves no peer waiting in a collective. `prepare` reduces over the data-parallel group and reports; `commit`
steps with the given learning rates and clip factor; `discard` drops the gradients and changes nothing else.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from mora_runtime.errors import StepProtocolError
from mora_runtime.process import faults

from mora_training.eager_optimizer import mark_eager, step_eagerly
from mora_training.ema import ShardedEma
from mora_training.gathered_partitions import gather_on_first_rank
from mora_training.training_settings import OptimizerSettings

MAX_BUCKET_SIZE = 500_000_000  # float32 elements that replicas reduce at once


def local_gradient(parameter: torch.nn.Parameter) -> torch.Tensor | None:
    """This rank's sum of a parameter's gradients since the last step; float32 for bfloat16 parameters."""
    accumulated: torch.Tensor | None = getattr(parameter, "grad_accum", None)
    return parameter.grad if accumulated is None else accumulated


@dataclass(frozen=True)
class GradientReport:
    """A role's answer to PREPARE; equal on every rank of its group."""

    finite: bool
    squared_norm: float  # sum of squares of the group-averaged gradient, float64; 0.0 when not finite


class ShardedOptimizer:
    """A DeepSpeed ZeRO 1/2 engine over some parameters of `module`, stepped in two phases.

    Args:
        module: its parameters with `requires_grad` train; float32, or bfloat16 with float32 master weights.
        groups: parameters per learning rate, in the order `commit` takes the rates.
        settings: kind of optimizer, ZeRO stage, moving average.

    The process group must have been joined (`join_group`).
    """

    def __init__(
        self, module: torch.nn.Module, groups: Sequence[Sequence[torch.nn.Parameter]], settings: OptimizerSettings
    ) -> None:
        import deepspeed

        optimizer = _torch_optimizer(groups, settings)
        bfloat16 = groups[0][0].dtype == torch.bfloat16
        self._engine, self._zero, _, _ = deepspeed.initialize(
            model=module,
            optimizer=optimizer,
            config=_deepspeed_config(settings, bfloat16, sum(p.numel() for group in groups for p in group)),
            dist_init_required=False,
        )
        if bfloat16:
            _accumulate_in_float32(self._zero, groups)
        self._names = {id(parameter): name for name, parameter in module.named_parameters()}
        self._settings = settings
        self._prepared = False
        self.ema = None if settings.ema_decay is None else ShardedEma(self._masters, settings.ema_decay)
        self._window = contextlib.ExitStack()
        self._open_window()

    @property
    def _masters(self) -> list[torch.Tensor]:
        """This rank's float32 master partition of each parameter group, flat."""
        return list(self._zero.single_partition_of_fp32_groups)

    def _open_window(self) -> None:
        self._window.enter_context(self._engine.coalesce_grad_reduction())
        self._prepared = False

    def prepare(self) -> GradientReport:
        """Average the accumulated gradients over the group (a collective) and report finiteness and norm.

        Raises:
            StepProtocolError: called twice without a commit or discard in between.
        """
        if self._prepared:
            raise StepProtocolError("prepare came twice; expected commit or discard after a prepare")
        self._window.close()
        self._prepared = True
        return _reduce_report([g for gradients in self._gradients() for g in gradients])

    def _gradients(self) -> list[list[torch.Tensor]]:
        averaged = self._zero.averaged_gradients
        return [averaged[index] for index in sorted(averaged) if averaged[index] is not None]

    def commit(self, learning_rates: Sequence[float], clip: float) -> None:
        """Scale the reduced gradients by `clip` (in (0, 1]) and step each group with its learning rate.

        Raises:
            StepProtocolError: no prepare came first, or the rates do not match the groups.
        """
        self._require_prepared("commit")
        if len(learning_rates) != len(self._zero.param_groups):
            raise StepProtocolError(
                f"commit got {len(learning_rates)} learning rates, expected {len(self._zero.param_groups)}"
            )
        if clip < 1.0:
            for gradients in self._gradients():
                torch._foreach_mul_(gradients, clip)
        for group, learning_rate in zip(self._zero.param_groups, learning_rates, strict=True):
            group["lr"] = learning_rate
        self._engine.step()
        faults.reach("mid_optimizer")
        if self.ema is not None:
            self.ema.update()
        self._open_window()

    def discard(self) -> None:
        """Drop the reduced gradients of a prepare: parameters, optimizer and average stay bit-identical."""
        self._require_prepared("discard")
        self._drop_gradients()
        self._open_window()

    def reset(self) -> None:
        """Drop all gradients of an abandoned step, prepared or not, without communicating."""
        self._drop_gradients()
        if self._prepared:
            self._open_window()

    def _drop_gradients(self) -> None:
        self._zero.zero_grad(set_to_none=True)
        for index in list(self._zero.averaged_gradients):
            self._zero.averaged_gradients[index] = None
            self._zero.all_grad_tensors[index] = None

    def _require_prepared(self, what: str) -> None:
        if not self._prepared:
            raise StepProtocolError(f"{what} came without a prepare; expected prepare first, in every step")

    def trained_pieces(self) -> list[torch.Tensor]:
        """This rank's piece of each trained parameter's master weights, flat; empty where other ranks have all of it.

        The pieces are views, in the same order on every rank.
        """
        pieces = []
        for parameters, master in zip(self._zero.round_robin_bit16_groups, self._masters, strict=True):
            size = master.numel()
            start = -dist.get_rank() * size  # of the parameter, counted from the beginning of this rank's partition
            for parameter in parameters:
                end = start + parameter.numel()
                first, last = min(max(start, 0), size), min(max(end, 0), size)
                pieces.append(master.detach()[first:last])
                start = end
        return pieces

    def state(self) -> dict[str, torch.Tensor]:
        """Everything that a resume needs of this rank's shard: master weights, moments, step counts, moving average."""
        tensors: dict[str, torch.Tensor] = {}
        for index, master in enumerate(self._masters):
            tensors[f"{index}.master"] = master.detach()
            for name, value in self._zero.optimizer.state.get(master, {}).items():
                tensors[f"{index}.{name}"] = torch.as_tensor(value)
            if self.ema is not None:
                tensors[f"{index}.ema"] = self.ema.shadows[index]
        tensors["ema_updates"] = torch.tensor(0 if self.ema is None else self.ema.num_updates)
        return tensors

    @torch.no_grad()
    def load_state(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Restore the `state` of the same rank in a group of the same size, then refresh the parameters."""
        for index, master in enumerate(self._masters):
            master.copy_(_shard(tensors, f"{index}.master", master))
            prefix = f"{index}."
            found = {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}
            moments = {name: value for name, value in found.items() if name not in ("master", "ema")}
            self._restore_moments(master, moments)
            if self.ema is not None:
                self.ema.shadows[index].copy_(_shard(tensors, f"{index}.ema", master))
        if self.ema is not None:
            self.ema.num_updates = int(tensors["ema_updates"])
        self._zero.update_lp_params()

    def _restore_moments(self, master: torch.Tensor, moments: Mapping[str, torch.Tensor]) -> None:
        """Copy moments into those that are there, as DeepSpeed has views of them that would keep the memory alive."""
        states = self._zero.optimizer.state
        if not moments:  # the checkpoint is from before the first step
            states.pop(master, None)
            self._zero._hp_optimizer_states_linked = False  # DeepSpeed looks for the new ones after the next step
            return
        known = states.setdefault(master, {})
        for name, value in moments.items():
            if name in known:
                known[name].copy_(value)
            else:  # torch's optimizers count steps on the CPU and expect the moments next to the weights
                known[name] = value.clone() if name == "step" else value.to(master.device, copy=True)

    def gathered_ema(self) -> dict[str, torch.Tensor] | None:
        """The moving average as named float32 CPU tensors of the parameters' shapes (a collective).

        None on ranks other than 0, which have only their part of it, and without a moving average.
        """
        if self.ema is None:
            return None
        named: dict[str, torch.Tensor] = {}
        for parameters, shadow in zip(self._zero.round_robin_bit16_groups, self.ema.shadows, strict=True):
            tensors = gather_on_first_rank(shadow, [parameter.shape for parameter in parameters])
            if tensors is not None:
                names = [self._names[id(parameter)] for parameter in parameters]
                named.update(zip(names, tensors, strict=True))
        return named or None


def _torch_optimizer(
    groups: Sequence[Sequence[torch.nn.Parameter]], settings: OptimizerSettings
) -> torch.optim.Optimizer:
    param_groups = [{"params": list(group)} for group in groups]
    mark_eager(torch.optim.Optimizer)
    optimizer: torch.optim.Optimizer
    # This rate is never used: every commit sets it.
    if settings.kind == "sgd":
        optimizer = torch.optim.SGD(param_groups, lr=0.0, weight_decay=settings.weight_decay)
    else:
        optimizer = torch.optim.AdamW(
            param_groups, lr=0.0, betas=settings.betas, eps=settings.eps, weight_decay=settings.weight_decay
        )
    step_eagerly(optimizer)
    return optimizer


def _deepspeed_config(settings: OptimizerSettings, bfloat16: bool, num_trained: int) -> dict[str, Any]:
    config: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": 0.0,  # commit applies one factor for all roles
        # in elements; DeepSpeed allocates the whole bucket in every step, even for a small adapter
        "zero_optimization": {"stage": settings.zero_stage, "reduce_bucket_size": min(num_trained, MAX_BUCKET_SIZE)},
        "zero_allow_untested_optimizer": True,
    }
    if bfloat16:
        config["bf16"] = {"enabled": True}
        config["communication_data_type"] = "fp32"
        # With float32 accumulation DeepSpeed swaps ZeRO 1 for another optimizer, which cannot defer its reduction.
        config["data_types"] = {"grad_accum_dtype": "fp32" if settings.zero_stage == 2 else "bf16"}
    return config


def _accumulate_in_float32(zero: Any, groups: Sequence[Sequence[torch.nn.Parameter]]) -> None:
    """Move each bfloat16 gradient into DeepSpeed's float32 accumulator as soon as it exists.

    So the sums over micro-batches and over replicas are float32. DeepSpeed does this by itself only for some stages
    and types; its buffers follow from these attributes.
    """
    zero.gradient_accumulation_dtype = torch.float32
    zero.use_separate_grad_accum = zero.use_grad_accum_attribute = True
    for group in groups:
        for parameter in group:
            parameter.grad_accum = None  # type: ignore[attr-defined]
            parameter.register_post_accumulate_grad_hook(  # type: ignore[no-untyped-call]
                zero._fill_param_grad_accum_attribute
            )


def _reduce_report(gradients: Sequence[torch.Tensor]) -> GradientReport:
    local = sum((g.double().square().sum().item() for g in gradients), start=0.0)
    device = gradients[0].device if gradients else torch.device("cpu")
    total = torch.tensor([local], dtype=torch.float64, device=device)
    dist.all_reduce(total)
    squared_norm = float(total.item())
    finite = math.isfinite(squared_norm)
    return GradientReport(finite, squared_norm if finite else 0.0)


def _shard(tensors: Mapping[str, torch.Tensor], name: str, like: torch.Tensor) -> torch.Tensor:
    if name not in tensors or tensors[name].shape != like.shape:
        came = f"shape {tuple(tensors[name].shape)}" if name in tensors else "nothing"
        raise StepProtocolError(
            f"optimizer state `{name}`: expected shape {tuple(like.shape)}, got {came}; "
            "the checkpoint was written by another model or another number of replicas"
        )
    return tensors[name]
