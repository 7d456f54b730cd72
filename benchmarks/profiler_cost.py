"""`mora bench profiler_cost`: what tracing costs a training step, on and off.

On: the same servers and coordinator repeat the same step with tracing on and off alternately, so that the machine's
drift affects both. Off: the cost of a step's hooks, which is the time of one hook in a loop times their number.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mora_launch.config.train_config import load_config
from mora_launch.environments.venvs import ROOT
from mora_launch.profiling.role_trace import read_role_traces
from mora_runtime.rpc.torch_trace import PROFILER
from mora_runtime.trace import tracing

from benchmarks.chain_session import DEADLINE_S, ChainSession, chain_session
from benchmarks.figures import add_json_option, publish

_NUM_HOOKS = 200_000  # in the loop that measures one


def measure(config_path: Path, folder: Path, *, num_rounds: int) -> dict[str, Any]:
    """Ratios of step times by round, and the cost of a hook that records nothing."""
    off_ns = hook_ns()
    traces = folder / "trace"
    traces.mkdir()
    with chain_session(load_config(config_path, []), folder / "run", traces=traces) as session:
        tracing.start(traces / "coordinator.0.jsonl", "coordinator.0")
        times = _interleaved(session, num_rounds)
        tracing.stop()
    num_events = _events_of_a_step(traces, len(times["on"]) + 1)
    ratios = [on / off for on, off in zip(times["on"], times["off"], strict=True)]
    step_s = statistics.median(times["off"])
    return {
        "cost_on": statistics.median(ratios) - 1.0,
        "cost_on_standard_error": 1.25 * statistics.stdev(ratios) / len(ratios) ** 0.5,  # of a median
        "cost_on_by_events": num_events * recorded_ns(folder) / 1e9 / step_s,
        "cost_off": num_events * off_ns / 1e9 / step_s,
        "step_s": {name: statistics.median(spent) for name, spent in times.items()},
        "ratio_by_round": [round(ratio, 4) for ratio in ratios],
        "hook_off_ns": off_ns,
        "events_a_step": num_events,
        "num_rounds": num_rounds,
    }


def hook_ns() -> float:
    """Time of one `with tracing.span(...)` in a process that is not traced, minus that of an empty loop."""

    def loop() -> float:
        started_ns = time.perf_counter_ns()
        for _ in range(_NUM_HOOKS):
            with tracing.span("hook", "protocol"):
                pass
        return (time.perf_counter_ns() - started_ns) / _NUM_HOOKS

    def empty() -> float:
        started_ns = time.perf_counter_ns()
        for _ in range(_NUM_HOOKS):
            pass
        return (time.perf_counter_ns() - started_ns) / _NUM_HOOKS

    return min(loop() for _ in range(5)) - min(empty() for _ in range(5))


def recorded_ns(folder: Path) -> float:
    """Time of one span of the most expensive category in a traced process, writing it to the file included."""
    tracing.start(folder / "cost.jsonl", "cost.0")
    started_ns = time.process_time_ns()
    for _ in range(_NUM_HOOKS // 10):
        with tracing.span("hook", "compute"):
            pass
    tracing.stop()
    return (time.process_time_ns() - started_ns) / (_NUM_HOOKS // 10)


@contextmanager
def _paused(session: ChainSession) -> Iterator[None]:
    """Switch tracing off in every role."""
    _tell_servers(session, "pause")
    tracer = tracing.active
    assert tracer is not None
    tracing.pause()
    try:
        yield
    finally:
        tracing.resume(tracer)
        _tell_servers(session, "resume")


def _tell_servers(session: ChainSession, method: str) -> None:
    for client in session.clients.values():
        client.call(PROFILER, method, {}, deadline_s=DEADLINE_S)


def _interleaved(session: ChainSession, num_rounds: int) -> dict[str, list[float]]:
    """Run the same step with and without tracing; the order alternates. The first round of both is warm-up."""
    times: dict[str, list[float]] = {"on": [], "off": []}
    batches = session.batches(0)
    number = 0
    for round_number in range(num_rounds + 1):
        for name in ("on", "off") if round_number % 2 else ("off", "on"):
            if name == "on":
                spent_s = _step_s(session, number, batches)
            else:
                with _paused(session):
                    spent_s = _step_s(session, number, batches)
            number += 1
            if round_number:
                times[name].append(spent_s)
    return times


def _step_s(session: ChainSession, number: int, batches: Any) -> float:
    started_s = time.perf_counter()
    session.step(number, batches)
    return time.perf_counter() - started_s


def _events_of_a_step(traces: Path, num_steps: int) -> int:
    """Number of spans, arrows and moves in an average traced step, over all roles."""
    found = read_role_traces(traces)
    first_ns = min(span.start_ns for trace in found for span in trace.spans if span.name == "micro-batches")
    spans = [span for trace in found for span in trace.spans if span.start_ns >= first_ns]
    others = [event for trace in found for event in (*trace.flows, *trace.moves) if event.at_ns >= first_ns]
    return round((len(spans) + len(others)) / num_steps)


def main() -> None:
    """Command line of the measurement."""
    parser = argparse.ArgumentParser(prog="mora bench profiler_cost", description=__doc__)
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "tiny.yaml")
    add_json_option(parser)
    parser.add_argument("--rounds", type=int, default=20, help="pairs of steps, 2 or more")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mora-bench-profiler-") as folder:
        result = measure(arguments.config, Path(folder), num_rounds=arguments.rounds)
    publish(result, arguments.json)


if __name__ == "__main__":
    main()
