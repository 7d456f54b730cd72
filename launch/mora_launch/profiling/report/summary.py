"""What a traced job says about its time: the content of `summary.json`, which page and terminal show."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from mora_launch.config.train_config import TrainConfig
from mora_launch.profiling.advice import Measured, ranked_advice
from mora_launch.profiling.bubble import bubble
from mora_launch.profiling.critical_path import critical_path, path_sums
from mora_launch.profiling.lane import CATEGORIES, UNTRACED, Lane
from mora_launch.profiling.message import matched_messages
from mora_launch.profiling.role_trace import Move, RoleTrace
from mora_launch.profiling.step_window import StepWindow, step_windows
from mora_launch.profiling.trial import Trial

FORMAT_VERSION = 1
MOVE_KINDS = ("inline", "copied", "resident", "reference", "spilled", "device", "staged")


def summarise(
    traces: Sequence[RoleTrace],
    config: TrainConfig,
    *,
    torch_step: int | None,
    num_cores: int,
    trials: Sequence[Trial] = (),
) -> dict[str, Any]:
    """Everything the summary says, as JSON.

    Args:
        torch_step: the step that torch's profiler recorded too; its time does not count.
        num_cores: processor cores that the job may use.
        trials: of advices; what was not faster is not advised.
    """
    lanes = [Lane(trace) for trace in traces]
    messages = matched_messages(traces)
    windows = step_windows(lanes, torch_step)
    measured = [window for window in windows if not window.left_out]
    steps = []
    for window in windows:
        path = critical_path(lanes, messages, window)
        idle = bubble(lanes, window)
        steps.append(
            {
                "replica": window.replica,
                "step": window.number,
                "left_out": window.left_out,
                "wall_s": window.wall_s,
                "roles": _roles(lanes, window),
                "bubble": {
                    "share": idle.share,
                    "imbalance_share": idle.imbalance_share,
                    "pipeline_s": (window.pipeline[1] - window.pipeline[0]) / 1e9,
                    "idle_s": idle.seconds(),
                },
                "critical_path": path_sums(path),
            }
        )
    counted = [step for step in steps if not step["left_out"]]
    return {
        "format": FORMAT_VERSION,
        "num_steps": len(windows),
        "num_steps_counted": len(measured),
        "mean": _means(counted),
        "advice": _advice(Measured(config, traces, lanes, measured, num_cores), trials),
        "tried": [{**asdict(trial), "is_faster": trial.is_faster} for trial in trials],
        "bytes": _bytes(traces, measured),
        "processor": {trace.role: _mean_counter(trace, "cpu", "cores", windows) for trace in traces},
        "gpu": _gpu(traces, windows),
        "roles": {
            trace.role: {"pid": trace.pid, "is_complete": trace.is_complete, "num_dropped": trace.num_dropped}
            for trace in traces
        },
        "steps": steps,
    }


def _advice(measured: Measured, trials: Sequence[Trial]) -> list[dict[str, Any]]:
    """The advices, without those that a trial has refuted; the one that made steps faster comes first."""
    outcomes = {trial.change: trial.is_faster for trial in trials}
    left = [advice for advice in ranked_advice(measured) if outcomes.get(advice.change, True)]
    return [asdict(advice) for advice in sorted(left, key=lambda advice: advice.change not in outcomes)]


def _roles(lanes: Sequence[Lane], window: StepWindow) -> dict[str, dict[str, float]]:
    return {
        lane.role: {f"{category}_s": spent_s for category, spent_s in shares.items()}
        for lane in lanes
        if lane.replica == window.replica
        for shares in [lane.shares(window.start_ns, window.end_ns)]
    }


def _means(steps: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means over the steps that count; empty where there are none."""
    if not steps:
        return {}
    roles: dict[str, dict[str, Any]] = {}
    for role in sorted({role for step in steps for role in step["roles"]}):
        mine = [step for step in steps if role in step["roles"]]
        spent = {
            category: statistics.mean(step["roles"][role][f"{category}_s"] for step in mine)
            for category in (*CATEGORIES, UNTRACED)
        }
        wall_s = statistics.mean(step["wall_s"] for step in mine)
        roles[role] = {
            **{f"{category}_s": spent_s for category, spent_s in spent.items()},
            "shares": {category: spent_s / wall_s for category, spent_s in spent.items()},
        }
    path: dict[tuple[str, str, str], float] = defaultdict(float)
    for step in steps:
        for entry in step["critical_path"]:
            path[(entry["role"], entry["category"], entry["name"])] += entry["spent_s"] / len(steps)
    wall_s = statistics.mean(step["wall_s"] for step in steps)
    ranked = sorted(path.items(), key=lambda item: -item[1])
    return {
        "wall_s": wall_s,
        "bubble_share": statistics.mean(step["bubble"]["share"] for step in steps),
        "imbalance_share": statistics.mean(step["bubble"]["imbalance_share"] for step in steps),
        "roles": roles,
        "critical_path": [
            {"role": role, "category": category, "name": name, "spent_s": spent_s, "share": spent_s / wall_s}
            for (role, category, name), spent_s in ranked
        ],
    }


def _bytes(traces: Sequence[RoleTrace], steps: Sequence[StepWindow]) -> dict[str, Any]:
    """Bytes of tensors in an average counted step, by kind and by edge."""
    kinds = dict.fromkeys(MOVE_KINDS, 0.0)
    edges: dict[tuple[str, str], dict[str, float]] = {}
    for trace in traces:
        for move in trace.moves:
            if _falls_into(move, trace.replica, steps):
                nbytes = move.nbytes / max(1, _num_of_replica(trace.replica, steps))
                kinds[move.kind] += nbytes
                edge = edges.setdefault((move.source, move.target), dict.fromkeys(MOVE_KINDS, 0.0))
                edge[move.kind] += nbytes
    listed = [{"from": source, "to": target, **found} for (source, target), found in sorted(edges.items())]
    return {"by_kind": kinds, "by_edge": listed}


def _falls_into(move: Move, replica: int, steps: Sequence[StepWindow]) -> bool:
    return any(step.replica == replica and step.start_ns <= move.at_ns < step.end_ns for step in steps)


def _num_of_replica(replica: int, steps: Sequence[StepWindow]) -> int:
    return sum(step.replica == replica for step in steps)


def _mean_counter(trace: RoleTrace, counter: str, value: str, steps: Sequence[StepWindow]) -> float | None:
    """Mean of a counter's samples while steps ran; None where there is none."""
    found = [
        sample.values[value]
        for sample in trace.samples
        if sample.counter == counter and value in sample.values
        and any(s.replica == trace.replica and s.start_ns <= sample.at_ns < s.end_ns for s in steps)
    ]  # fmt: skip
    return statistics.mean(found) if found else None


def _gpu(traces: Sequence[RoleTrace], steps: Sequence[StepWindow]) -> dict[str, Any] | str:
    found = {
        trace.role: {
            "busy": _mean_counter(trace, "gpu", "busy", steps),
            "allocated_nbytes": _mean_counter(trace, "gpu", "allocated_nbytes", steps),
        }
        for trace in traces
        if any(sample.counter == "gpu" for sample in trace.samples)
    }
    return found or "no GPU"
