"""The memory that `--dry-run` plans for the agents, asked while the first parts run, and compared with what they took.

The environments count it by running their code on the meta device, which takes a minute at published size.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

from mora_environment.cost import AgentCost
from mora_launch.config.train_config import TrainConfig
from mora_launch.environments.agent_cost import ask_costs
from mora_launch.jobs.servers import check_agents
from mora_runtime.errors import MoraError
from mora_trainer.terminal import Console

from benchmarks.device_check.outcome import Outcome

_MAX_SHARE = 1.25  # of the plan; more would break a job that the plan lets start
_NAMES = ("forward_nbytes", "graph_nbytes", "backward_nbytes")


class PlannedMemory:
    """The plan of a configuration; asking starts here, in a thread."""

    def __init__(self, config: TrainConfig) -> None:
        self._pool = ThreadPoolExecutor(1)
        self._costs: Future[dict[str, AgentCost | None]] = self._pool.submit(_costs, config)

    def compare(self, agent: str, outcome: Outcome, deadline_s: float) -> None:
        """Add the plan to the figures of a part that measured `memory`, and fail it if the plan is far too low."""
        taken = outcome.figures.get("memory")
        if taken is None:
            return
        try:
            cost = self._costs.result(deadline_s)[agent]
        except (TimeoutError, MoraError) as error:
            outcome.figures["planned_memory"] = f"unknown: {error or f'no plan within {deadline_s:.0f} s'}"
            return
        if cost is None:
            outcome.figures["planned_memory"] = "unknown: the kind of this agent does not tell its cost"
            return
        planned = {name: getattr(cost.step, name) for name in _NAMES}
        outcome.figures["planned_memory"] = planned
        peak, expected = (max(each.values()) for each in (taken, planned))
        outcome.figures["memory_share_of_plan"] = round(peak / expected, 3)
        if peak > _MAX_SHARE * expected:
            outcome.fail(f"expected at most {_MAX_SHARE} of the {expected} bytes of the plan, a call took {peak}")

    def close(self) -> None:
        """Wait for nothing that has not begun."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def _costs(config: TrainConfig) -> dict[str, AgentCost | None]:
    config = config.of_chain()
    return ask_costs(config, check_agents(config, Console(quiet=True)))
