"""Advice on what to change first: estimates the gain of each change of the configuration from the measured steps."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from mora_launch.config.train_config import TrainConfig
from mora_launch.profiling.lane import Lane
from mora_launch.profiling.role_trace import RoleTrace
from mora_launch.profiling.schedule import StageSeconds, critical_path_s
from mora_launch.profiling.stage_times import StageCalls, StageTime, StageTimes, stage_times
from mora_launch.profiling.step_window import StepWindow

_WORTH_SHARE = 0.01  # of a step: smaller gains are not reported
# Of a call's time, what does not shrink with its batch: launches, weights that are read, small matrices. An assumption;
# measured on the tiny models it was 0.15. `--try` measures the whole step.
_FIXED_SHARE = 0.2
_MAX_NUM_MICRO_BATCHES = 64


@dataclass(frozen=True)
class Advice:
    """One change and its estimated gain for each step, in seconds and as a share of the step."""

    change: str  # training.pipeline.max_in_flight: 1 -> 3
    gain_s: float
    gain_share: float
    why: str
    setting: str | None = None  # for `--set`; None if it is no change of one key
    is_assumed: bool = False  # rests on more than the measured times


@dataclass(frozen=True)
class Measured:
    """The input of the advice: the steps that count, and all traces."""

    config: TrainConfig
    traces: Sequence[RoleTrace]
    lanes: Sequence[Lane]
    steps: Sequence[StepWindow]
    num_cores: int  # available to this job

    def step_s(self) -> float:
        """Median time of a step."""
        return statistics.median(step.wall_s for step in self.steps)

    def stages(self, step: StepWindow) -> StageTimes:
        """Times of the chain's stages in a step."""
        return stage_times(self.lanes, step, self.config.chain_names)


def ranked_advice(measured: Measured) -> list[Advice]:
    """Return the changes that would gain at least 1 % of a step.

    Those that follow from the measured times come first, then those that rest on an assumption; each part by gain.
    """
    if not measured.steps:
        return []
    step_s = measured.step_s()
    found = [
        replace(advice, gain_share=advice.gain_s / step_s)
        for rule in _RULES
        for advice in rule(measured)
        if advice.gain_s >= _WORTH_SHARE * step_s
    ]
    return sorted(found, key=lambda advice: (advice.is_assumed, -advice.gain_s))


def _schedule_gain(measured: Measured, other: Callable[[StageTimes], float]) -> float:
    """Return the median, over the steps, of the current schedule's time minus that of the schedule of `other`."""
    in_flight = measured.config.max_in_flight
    gains = []
    for step in measured.steps:
        stages = measured.stages(step)
        if stages.num_micro_batches:
            gains.append(critical_path_s(stages.for_schedule(), in_flight) - other(stages))
    return statistics.median(gains) if gains else 0.0


def _more_in_flight(measured: Measured) -> Iterator[Advice]:
    now = measured.config.max_in_flight
    most = max((measured.stages(step).num_micro_batches for step in measured.steps), default=0)
    options = [(_schedule_gain(measured, partial(_as_is, max_in_flight=n)), -n) for n in range(now + 1, most + 1)]
    if options:
        gain_s, number = max((round(gain_s, 4), number) for gain_s, number in options)
        yield Advice(
            f"training.pipeline.max_in_flight: {now} -> {-number}", gain_s, 0.0,
            "servers wait for each other while more micro-batches could be in flight; each keeps its graph in memory",
            f"training.pipeline.max_in_flight={-number}",
        )  # fmt: skip


def _other_micro_batches(measured: Measured) -> Iterator[Advice]:
    training = measured.config.training
    size = training.micro_batch_size
    share = training.batch_size // measured.config.replicas
    options = []
    for other in range(1, share + 1):
        if share % other == 0 and other != size and share // other <= _MAX_NUM_MICRO_BATCHES:
            in_flight = measured.config.max_in_flight
            cut = partial(_with_size, factor=other / size, number=share // other, max_in_flight=in_flight)
            options.append((_schedule_gain(measured, cut), other))
    if options:
        gain_s, other = max(options)
        why = (
            "more and smaller micro-batches fill the pipeline sooner and drain it sooner"
            if other < size
            else "fewer and larger micro-batches save the fixed cost of each call; they need more memory"
        )
        text = f"{why}. The estimate assumes how compute grows with the samples; --try measures it"
        setting = f"training.micro_batch_size={other}"
        yield Advice(f"training.micro_batch_size: {size} -> {other}", gain_s, 0.0, text, setting, is_assumed=True)


def _as_is(stages: StageTimes, max_in_flight: int) -> float:
    return critical_path_s(stages.for_schedule(), max_in_flight)


def _with_size(stages: StageTimes, factor: float, number: int, max_in_flight: int) -> float:
    """Return the time of `number` micro-batches, each with `factor` times the samples of the measured ones.

    A part of a call's time is fixed. It is left out of a larger micro-batch, so that neither direction looks too good.
    """
    growth = factor if factor > 1.0 else _FIXED_SHARE + (1.0 - _FIXED_SHARE) * factor

    def cut(column: Sequence[StageTime]) -> tuple[StageTime, ...]:
        if not column:
            return ()
        num = len(column)
        mean = StageTime(growth * sum(s.compute_s for s in column) / num, sum(s.overhead_s for s in column) / num)
        return (mean,) * number

    other = [StageCalls(stage.agent, cut(stage.forward), cut(stage.backward)) for stage in stages.stages]
    return critical_path_s(StageTimes(tuple(other)).for_schedule(), max_in_flight)


def _more_threads(measured: Measured) -> Iterator[Advice]:
    config = measured.config
    in_use = config.replicas * sum(agent.num_threads for agent in config.agents.values())
    for name, agent in config.agents.items():
        free = (measured.num_cores - in_use) // config.replicas
        if agent.device(0) != "cpu" or free < agent.num_threads:
            continue
        faster = partial(_twice_as_fast, agent=name, max_in_flight=config.max_in_flight)
        gain_s = _schedule_gain(measured, faster)
        yield Advice(
            f"agents.{name}.num_threads: {agent.num_threads} -> {2 * agent.num_threads}", gain_s, 0.0,
            f"{free} cores are free, and the step waits for the {name} agent; the gain assumes twice the speed",
            f"agents.{name}.num_threads={2 * agent.num_threads}", is_assumed=True,
        )  # fmt: skip


def _twice_as_fast(stages: StageTimes, agent: str, max_in_flight: int) -> float:
    return critical_path_s(stages.for_schedule({agent: 0.5}), max_in_flight)


def _no_recompute(measured: Measured) -> Iterator[Advice]:
    # the last agent runs its backward at once, so it never runs a forward again
    *inner, _ = measured.config.chain_names
    for place, name in enumerate(inner):
        if measured.config.agents[name].recompute:
            kept = partial(_without_second_forward, place=place, max_in_flight=measured.config.max_in_flight)
            yield Advice(
                f"agents.{name}.recompute: true -> false", _schedule_gain(measured, kept), 0.0,
                "every forward runs twice; keeping the graphs costs the memory that `activations` in the trace would "
                "show",
                f"agents.{name}.recompute=false",
            )  # fmt: skip


def _without_second_forward(stages: StageTimes, place: int, max_in_flight: int) -> float:
    """Return the time of a schedule in which the backward of one stage does not repeat its forward."""
    spared = []
    for times in stages.for_schedule():
        forward_s, backward_s = times[place]
        kept = StageSeconds(forward_s, None if backward_s is None else max(0.0, backward_s - forward_s))
        spared.append([*times[:place], kept, *times[place + 1 :]])
    return critical_path_s(spared, max_in_flight)


def _undisturbed_cores(measured: Measured) -> Iterator[Advice]:
    config = measured.config
    lost_s = {
        lane.role: sum(_lost_s(lane, step) for step in measured.steps) / len(measured.steps)
        for lane in measured.lanes
        if lane.name in config.chain_names and config.agents[lane.name].device(lane.replica) == "cpu"
    }
    if not lost_s:
        return
    role, most_s = max(lost_s.items(), key=lambda entry: entry[1])
    if not config.pin_cores:
        change, setting, what = "pin_cores: false -> true", "pin_cores=true", "give each server cores of its own"
    else:
        change, setting = "(machine) fewer other processes", None
        what = "pin_cores is on already: something else uses the cores"
    yield Advice(
        change, most_s, 0.0,
        f"while {role} computed, its core was taken away for {most_s:.3f} s a step; {what}", setting,
    )  # fmt: skip


def _lost_s(lane: Lane, step: StepWindow) -> float:
    """Return the seconds of a step in which a role's compute had no core: wall time minus CPU time of its spans."""
    lost_ns = 0
    end_ns = 0
    for span in lane.spans:
        if span.category == "compute" and step.start_ns <= span.start_ns < step.end_ns and span.start_ns >= end_ns:
            lost_ns += max(0, span.spent_ns - int(span.args.get("cpu_ns", span.spent_ns)))
            end_ns = span.end_ns  # it includes the spans nested in it
    return lost_ns / 1e9


def _larger_arena(measured: Measured) -> Iterator[Advice]:
    for trace in measured.traces:
        spills = [
            move
            for move in trace.moves
            if move.kind == "spilled" and any(s.start_ns <= move.at_ns < s.end_ns for s in measured.steps)
        ]
        if spills:
            spent_s = sum(move.spent_ns for move in spills) / 1e9 / len(measured.steps)
            agent = measured.config.agents.get(trace.name)
            now = measured.config.shared_memory_nbytes
            key = f"agents.{trace.name}.arena_nbytes" if agent else f"shared_memory_nbytes: {now} -> {2 * now}"
            nbytes = sum(move.nbytes for move in spills) // len(measured.steps)
            yield Advice(
                key if agent is None else f"{key}: raise by {nbytes}", spent_s, 0.0,
                f"{trace.role}'s arena is full: {nbytes} bytes a step spill into fresh memory, which costs "
                f"{spent_s:.3f} s; the gain is less than that, because writing warm memory also takes time",
                f"shared_memory_nbytes={2 * now}" if agent is None else None,
            )  # fmt: skip


def _rarer_checkpoints(measured: Measured) -> Iterator[Advice]:
    every = measured.config.training.checkpoint_every
    spent_s = [
        lane.shares(step.start_ns, step.end_ns)["io"]
        for step in measured.steps
        for lane in measured.lanes
        if lane.role == f"coordinator.{step.replica}"
    ]
    if every and spent_s:
        mean_s = sum(spent_s) / len(spent_s)
        yield Advice(
            f"training.checkpoint_every: {every} -> {2 * every}", mean_s / 2, 0.0,
            f"steps wait {mean_s:.3f} s for checkpoints on average", f"training.checkpoint_every={2 * every}",
        )  # fmt: skip


_RULES: tuple[Callable[[Measured], Iterator[Advice]], ...] = (
    _more_in_flight,
    _other_micro_batches,
    _more_threads,
    _no_recompute,
    _undisturbed_cores,
    _larger_arena,
    _rarer_checkpoints,
)
