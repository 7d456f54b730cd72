"""One optimisation step of one replica: micro-batches, PREPARE, one decision, COMMIT or SKIP (docs/architecture.md).

Every coordinator rank runs the same steps in the same order. Every number that the decision depends on is reduced over
the replicas first, so all ranks decide the same without a vote.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from mora_runtime import Client
from mora_runtime.errors import MoraError, ProtocolError, StepAborted
from mora_runtime.process import faults
from mora_runtime.trace import tracing
from mora_training.optimizer_agent import PARTICIPANT
from mora_training.sharded_optimizer import GradientReport

from mora_trainer.chain.micro_batch import MicroBatch, MicroBatchResult
from mora_trainer.chain.remote_chain import RemoteChain
from mora_trainer.chain.stopwatch import Stopwatch
from mora_trainer.modulation import Modulation

MODULATION = "modulation"


@dataclass(frozen=True)
class LearningRates:
    """Rates of one step by agent, eta_theta and eta_z, with the schedule applied."""

    parameters: dict[str, float]
    embeddings: dict[str, float]


class Changes(NamedTuple):
    """Of an agent's trained tensors, how many differ from those before its first step."""

    num_changed: int
    num_trained: int


@dataclass(frozen=True)
class StepReport:
    """Results of one step, for metrics and progress.

    Equal on every rank, except for `output_gradient_norms` and `breakdown_s`.
    """

    step: int
    loss: float  # mean over the whole batch: the weighted sum of `losses`
    losses: dict[str, float]  # by agent, of those that add a loss
    skipped: bool
    clip: float
    gradient_norm: float  # over all roles, before clipping
    gradient_norms: dict[str, float]  # by agent, and of all z under `modulation`
    output_gradient_norms: dict[str, float]  # ||dL/dO_i|| by agent, largest over this rank's micro-batches
    norms: dict[str, float]  # ||z_i||
    alphas: dict[str, float]  # by agent, as committed; of a skipped step, alpha of the unchanged z
    breakdown_s: dict[str, float]
    changes: dict[str, Changes] = field(default_factory=dict)  # by agent, in the first steps after a start


def clip_factor(total_norm: float, clip_norm: float | None) -> float:
    """Factor that reduces a norm to `clip_norm`: min(1, clip_norm / (norm + 1e-6)), as torch's clip_grad_norm_."""
    return 1.0 if clip_norm is None else min(1.0, clip_norm / (total_norm + 1e-6))


class JointStep:
    """Runs optimisation steps over a chain and its participants.

    Args:
        chain: forward and backward of micro-batches.
        clients: by name of the agents that have an optimizer, in the order of all sums; each server hosts the
            participant of its agent.
        modulation: None = no modulation (ablation): no z, alpha = 1.
        clip_norm: global gradient norm over all roles; None = no clipping.
        deadline_s: for each call.
    """

    def __init__(
        self,
        chain: RemoteChain,
        clients: dict[str, Client],
        modulation: Modulation | None,
        *,
        clip_norm: float | None,
        deadline_s: float,
    ) -> None:
        self.chain = chain
        self._clients = clients
        self._modulation = modulation
        self._clip_norm = clip_norm
        self._deadline_s = deadline_s

    def run(self, step: int, batches: Sequence[MicroBatch], rates: LearningRates) -> StepReport:
        """Run one step.

        Raises:
            StepAborted: a replica failed before the decision; no role has changed, so the step may be run again.
        """
        watch = Stopwatch()
        results = self._accumulate(batches, watch)
        with watch.measure("prepare"):
            reports = self._prepare(step)
        finite = all(report.finite for report in reports.values())
        total_norm = math.sqrt(sum(report.squared_norm for report in reports.values()))
        clip = clip_factor(total_norm, self._clip_norm)
        with watch.measure("commit"):
            alphas, changes = self._commit(step, rates, clip) if finite else (self._skip(step), {})
        return StepReport(
            step=step,
            loss=results.loss,
            losses=results.losses,
            skipped=not finite,
            clip=clip,
            gradient_norm=total_norm if finite else math.nan,
            gradient_norms={
                name: math.sqrt(report.squared_norm) if report.finite else math.nan for name, report in reports.items()
            },
            output_gradient_norms=results.output_gradient_norms,
            norms={} if self._modulation is None else self._modulation.norms(),
            alphas=alphas,
            breakdown_s=watch.spent_s,
            changes=changes,
        )

    def _accumulate(self, batches: Sequence[MicroBatch], watch: Stopwatch) -> MicroBatchResult:
        """Run all micro-batches of this rank, then agree with the other ranks that none of theirs failed."""
        embeddings = {} if self._modulation is None else self._modulation.all_embeddings()
        failure: MoraError | None = None
        results: list[MicroBatchResult] = []
        try:
            with tracing.span("micro-batches", "protocol"):
                for result in self.chain.run(batches, embeddings, watch):
                    results.append(result)
                    if self._modulation is not None:
                        self._modulation.accumulate(result.gradients)
                    faults.reach("gradient_ready")
        except MoraError as error:
            failure = error
        with watch.measure("agree"):
            num_failed, num_results, *sums = _summed(
                [float(failure is not None), float(len(results)), *self._loss_sums(results)]
            )
        if num_failed > 0:
            self._abandon(alive=failure is None)
            cause = f"this replica: {failure}" if failure is not None else f"{num_failed:.0f} other replica(s)"
            raise StepAborted(f"the step was abandoned before any role changed, because of {cause}") from failure
        loss, *losses = [total / num_results for total in sums]
        norms = {
            name: max(result.output_gradient_norms[name] for result in results)
            for name in results[0].output_gradient_norms
        }
        return MicroBatchResult(loss, dict(zip(self._with_loss(), losses, strict=True)), {}, norms)

    def _with_loss(self) -> list[str]:
        return [stage.name for stage in self.chain.stages if stage.loss_weight > 0.0]

    def _loss_sums(self, results: Sequence[MicroBatchResult]) -> list[float]:
        return [
            sum(result.loss for result in results),
            *(sum(result.losses[name] for result in results) for name in self._with_loss()),
        ]

    def _prepare(self, step: int) -> dict[str, GradientReport]:
        pending = {name: self._submit(name, "prepare", {"step": step}) for name in self._clients}
        reports = {name: _report(name, call.result().values) for name, call in pending.items()}
        if self._modulation is not None:
            with tracing.span("reduce dL/dz", "compute"):
                reports[MODULATION] = self._modulation.prepare()
        faults.reach("prepared")
        return reports

    def _commit(self, step: int, rates: LearningRates, clip: float) -> tuple[dict[str, float], dict[str, Changes]]:
        """Algorithm 1: every z_i first, alpha_i from the updated ones, then every agent's parameters."""
        if self._modulation is not None:
            with tracing.span("step z", "compute"):
                self._modulation.commit(rates.embeddings, clip)
        alphas = self._alphas()
        pending = {
            name: self._submit(
                name,
                "commit",
                {"step": step, "alpha": alphas[name], "learning_rate": rates.parameters[name], "clip": clip},
            )
            for name in self._clients
        }
        found = {name: _changes(name, call.result().values) for name, call in pending.items()}
        faults.reach("committed")
        return alphas, {name: changes for name, changes in found.items() if changes is not None}

    def _alphas(self) -> dict[str, float]:
        """alpha_i of every agent with an optimizer; 1 for an agent without z."""
        factors = {} if self._modulation is None else self._modulation.factors()
        return {name: factors.get(name, 1.0) for name in self._clients}

    def _skip(self, step: int) -> dict[str, float]:
        if self._modulation is not None:
            self._modulation.optimizer.discard()
        for call in [self._submit(name, "skip", {"step": step}) for name in self._clients]:
            call.result()
        return self._alphas()

    def _abandon(self, *, alive: bool) -> None:
        """Drop this step's gradients on this rank; if it failed, its servers may be gone and are not called."""
        if self._modulation is not None:
            self._modulation.optimizer.reset()
        if alive:
            for call in [self._submit(name, "abandon", {}) for name in self._clients]:
                call.result()

    def _submit(self, agent: str, method: str, arguments: dict[str, Any]) -> Any:
        return self._clients[agent].submit(PARTICIPANT, method, arguments, deadline_s=self._deadline_s)


def _summed(values: list[float]) -> list[float]:
    total = torch.tensor(values, dtype=torch.float64)
    with tracing.span("wait for the other replicas", "wait"):
        dist.all_reduce(total)
    return [float(value) for value in total]


def _report(name: str, values: dict[str, Any]) -> GradientReport:
    finite, squared_norm = values.get("finite"), values.get("squared_norm")
    if not isinstance(finite, bool) or not isinstance(squared_norm, float):
        raise ProtocolError(f"{name}: PREPARE expected finite and squared_norm, got {sorted(values)}")
    return GradientReport(finite, squared_norm)


def _changes(name: str, values: dict[str, Any]) -> Changes | None:
    if not values:
        return None
    num_changed, num_trained = values.get("num_changed"), values.get("num_trained")
    if not isinstance(num_changed, int) or not isinstance(num_trained, int):
        raise ProtocolError(f"{name}: COMMIT expected num_changed and num_trained, got {sorted(values)}")
    return Changes(num_changed, num_trained)
