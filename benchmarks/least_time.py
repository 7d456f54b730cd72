"""The critical path of a measured step: its schedule if messages cost nothing."""

from __future__ import annotations

from collections.abc import Sequence

from mora_launch.profiling.schedule import StageSeconds, critical_path_s
from mora_trainer.chain.micro_batch import MicroBatchResult


def least_time_s(results: Sequence[MicroBatchResult], chain: Sequence[str], max_in_flight: int) -> float:
    """Return the critical path of the micro-batches of a step, from the agents' own compute times.

    Args:
        chain: names of the agents, in the order of the forward; all of them train.
        max_in_flight: most micro-batches in the chain at the same time.
    """
    times = [[_seconds(result, name) for name in chain] for result in results]
    return critical_path_s(times, max_in_flight)


def _seconds(result: MicroBatchResult, agent: str) -> StageSeconds:
    return StageSeconds(result.compute_s[f"{agent}_forward"], result.compute_s[f"{agent}_backward"])
