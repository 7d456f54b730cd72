"""A storm: jobs whose processes are killed at kill points and at random moments, until enough have died."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from mora_launch.jobs.run_status import read_status
from mora_runtime.errors import ConfigurationError
from mora_runtime.process.faults import happened

from benchmarks.chaos.job import HurtJob, Leaks, differences, outcome
from benchmarks.chaos.points import TINY

JOB_TIMEOUT_S = 900.0
_POLL_S = 0.25
_CALM_S = (3.0, 9.0)  # between two random kills
LOADING, TRAINING, DOUBLE = "loading", "training", "two at once"


@dataclass
class StormReport:
    """The results of a storm."""

    by_phase: Counter[str] = field(default_factory=Counter)
    num_double: int = 0
    num_hangs: int = 0
    leaks: list[Leaks] = field(default_factory=list)
    leaked_fds: int = 0
    num_identical: int = 0
    different: list[list[str]] = field(default_factory=list)

    @property
    def num_kills(self) -> int:
        """Number of processes that died."""
        return sum(self.by_phase.values())


class Storm:
    """Kills processes of one job after the other.

    Args:
        undisturbed: run of an undisturbed job; every other job must end with the same bytes.
        folder: receives the runs.
        say: prints one line.
    """

    def __init__(self, undisturbed: Path, folder: Path, seed: int, say: Callable[[str], None]) -> None:
        self._undisturbed = outcome(undisturbed)
        self._folder = folder
        self._random = random.Random(seed)
        self._say = say
        self._unused: list[str] = []
        self.report = StormReport()

    def rage(self, num_kills: int, *, num_double: int, kills_a_job: int) -> StormReport:
        """Run jobs until `num_kills` processes died; `num_double` times two at once, half of these the launcher."""
        number = 0
        while self.report.num_kills < num_kills:
            number += 1
            doubles = min(3, num_double - self.report.num_double)
            self._hurt_one(self._folder / f"job-{number}", kills_a_job, doubles)
            self._say(f"{self.report.num_kills} of {num_kills} kills, {self.report.num_identical} jobs identical")
        return self.report

    def _hurt_one(self, run: Path, kills: int, doubles: int) -> None:
        planned = self._plan(kills // 2)
        job = HurtJob(run, planned)
        try:
            ended = self._weather(job, kills - len(planned), doubles)
            if not ended:
                self.report.num_hangs += 1
                return
            self.report.by_phase.update(spec.split(":")[1] for spec in happened(run))
            leaks = job.leaks()
            if leaks:
                self.report.leaks.append(leaks)
            if found := differences(self._undisturbed, outcome(run)):
                self.report.different.append(found)
            else:
                self.report.num_identical += 1
        finally:
            job.end()

    def _plan(self, count: int) -> list[str]:
        """The next kill points in random order; every one has its turn before any repeats."""
        if len(self._unused) < count:
            again = [TINY.specification(role, point) for role, point in TINY.pairs()]
            again = [each for each in again if each not in self._unused]
            self._unused = self._random.sample(again, len(again)) + self._unused
        return [self._unused.pop() for _ in range(count)]

    def _weather(self, job: HurtJob, kills: int, doubles: int) -> bool:
        """Kill at random moments until the job succeeds; False if it does not in time."""
        deadline = time.monotonic() + JOB_TIMEOUT_S
        num_fds: list[int] = []
        next_s = time.monotonic() + self._random.uniform(*_CALM_S)
        while time.monotonic() < deadline:
            code = job.wait(_POLL_S)
            if code == 0:
                self.report.leaked_fds += max(0, num_fds[-1] - num_fds[0]) if num_fds else 0
                return True
            if code is not None:  # the storm has killed the launcher
                num_fds.clear()
                job.resume()
            elif (count := job.steady_num_fds()) is not None:
                num_fds.append(count)
            if time.monotonic() >= next_s and kills > 0 and self._is_wanted(_phase(job.run)):
                kills -= self._strike(job, with_double=doubles > 0)
                doubles -= 1
                next_s = time.monotonic() + self._random.uniform(*_CALM_S)
        self._say(f"{job.run}: the job has not ended within {JOB_TIMEOUT_S:.0f} s\n{job.said[-2000:]}")
        return False

    def _is_wanted(self, phase: str) -> bool:
        """A job with so many deaths mostly loads models; kills while loading must not outnumber those in training."""
        return phase == TRAINING or self.report.by_phase[LOADING] <= self.report.by_phase[TRAINING]

    def _strike(self, job: HurtJob, *, with_double: bool) -> int:
        """Kill one process, or two at the same moment; returns how many died."""
        phase = _phase(job.run)
        victims = [self._random.choice(sorted(TINY.roles))]
        if with_double:
            others = [role for role in TINY.roles if role not in victims]
            victims.append("launcher" if self.report.num_double % 2 else self._random.choice(others))
        hit = [role for role in victims if job.kill(role)]
        if len(hit) > 1:
            self.report.num_double += 1
            phase = f"{DOUBLE}{', launcher' if 'launcher' in hit else ''}"
        self.report.by_phase[phase] += len(hit)
        return len(hit)


def _phase(run: Path) -> str:
    try:
        status = read_status(run)
    except ConfigurationError:
        return LOADING
    return TRAINING if status.state == "running" and all(r.state == "ready" for r in status.roles) else LOADING
