"""Tries an advice: runs the job with and without it by turns, and compares the times of a step."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mora_launch.config.train_config import TrainConfig, changed_config
from mora_launch.profiling.advice import Advice

MAX_NUM_TRIED = 3  # advices of one profile
_NUM_TURNS = 2  # runs of each, so that a slower minute of the machine does not count for one alone

StepSeconds = Callable[[TrainConfig], Sequence[float]]


@dataclass(frozen=True)
class Trial:
    """One advice with the median time of a step without and with it."""

    change: str
    before_s: float
    after_s: float

    @property
    def is_faster(self) -> bool:
        """Whether the advice is worth taking."""
        return self.after_s < self.before_s

    def __str__(self) -> str:
        verdict = f"{1.0 - self.after_s / self.before_s:.0%} faster" if self.is_faster else "not faster, not advised"
        return f"{self.change}: {self.before_s:.3f} -> {self.after_s:.3f} s a step, {verdict}"


def tried(config: TrainConfig, advice: Sequence[Advice], first_s: Sequence[float], run: StepSeconds) -> list[Trial]:
    """Try advices in their order until one makes steps faster.

    Args:
        first_s: times of the profile's own steps, which count as the first run without the advice.
        run: runs the job with a configuration, and returns the times of its steps.
    """
    found: list[Trial] = []
    for each in [advice for advice in advice if advice.setting is not None][:MAX_NUM_TRIED]:
        assert each.setting is not None
        changed = changed_config(config.model_dump(mode="json"), [each.setting], source=f"--try {each.setting}")
        before_s, after_s = list(first_s), list(run(changed))
        for _ in range(_NUM_TURNS - 1):
            before_s += run(config)
            after_s += run(changed)
        found.append(Trial(each.change, statistics.median(before_s), statistics.median(after_s)))
        if found[-1].is_faster:
            break
    return found
