"""The critical path of any chain, compared with a simulation that advances a clock tick by tick."""

from collections import deque
from typing import Any

import pytest
from hand_made_trace import step_of_three_stages
from hypothesis import given
from hypothesis import strategies as st
from mora_launch.config.train_config import TrainConfig
from mora_launch.profiling.advice import Measured, ranked_advice
from mora_launch.profiling.bubble import bubble
from mora_launch.profiling.lane import Lane
from mora_launch.profiling.schedule import MicroBatchTimes, StageSeconds, critical_path_s
from mora_launch.profiling.stage_times import StageTime, stage_times
from mora_launch.profiling.step_window import step_windows

CHAIN = ("first", "second", "third")

ticks = st.integers(1, 3)  # whole numbers: no rounding, and many calls end at the same time


@st.composite
def steps(draw: st.DrawFn) -> list[MicroBatchTimes]:
    """Micro-batches of a chain whose first stages may train nothing, and then have no backward."""
    num_stages = draw(st.integers(1, 5))
    num_still = draw(st.integers(0, num_stages - 1))
    still, trained = st.builds(StageSeconds, ticks, st.none()), st.builds(StageSeconds, ticks, ticks)
    batch = st.tuples(*[still] * num_still, *[trained] * (num_stages - num_still))
    return draw(st.lists(batch, min_size=1, max_size=6))


def work(times: StageSeconds) -> float:
    return times.forward_s + (times.backward_s or 0.0)


def ticks_of(batches: list[MicroBatchTimes], max_in_flight: int) -> int:
    """Count the ticks until every micro-batch is back at the first stage that has a backward.

    A micro-batch visits the stages up to the last one and back. Each stage works on one visit at a time, in the order
    of their submission.
    """
    num_stages = len(batches[0])
    back = [stage for stage in range(num_stages - 1) if batches[0][stage].backward_s is not None]
    way = [*range(num_stages), *reversed(back)]
    queues: list[deque[tuple[int, int]]] = [deque() for _ in range(num_stages)]  # (micro-batch, position on the way)
    done_ticks = [0] * num_stages  # of the visit at the head of each queue
    num_begun = num_ended = now = 0

    def length(number: int, place: int) -> int:
        times = batches[number][way[place]]
        return int(work(times) if place == num_stages - 1 else times[place >= num_stages] or 0)

    while num_ended < len(batches):
        while num_begun < len(batches) and num_begun - num_ended < max_in_flight:
            queues[0].append((num_begun, 0))
            num_begun += 1
        now += 1
        answers = []
        for stage, queue in enumerate(queues):
            if queue:
                done_ticks[stage] += 1
                if done_ticks[stage] == length(*queue[0]):
                    answers.append(queue.popleft())
                    done_ticks[stage] = 0
        for number, place in sorted(answers, key=lambda answer: -answer[1]):
            if place + 1 < len(way):
                queues[way[place + 1]].append((number, place + 1))
            elif num_begun < len(batches):
                num_ended += 1
                queues[0].append((num_begun, 0))
                num_begun += 1
            else:
                num_ended += 1
    return now


@given(batches=steps(), max_in_flight=st.integers(1, 7))
def test_the_critical_path_equals_a_simulation_of_every_tick(
    batches: list[MicroBatchTimes], max_in_flight: int
) -> None:
    assert critical_path_s(batches, max_in_flight) == ticks_of(batches, max_in_flight)


@given(batches=steps(), max_in_flight=st.integers(1, 7))
def test_no_schedule_is_shorter_than_the_busiest_stage_or_longer_than_one_at_a_time(
    batches: list[MicroBatchTimes], max_in_flight: int
) -> None:
    by_stage = [sum(work(times[stage]) for times in batches) for stage in range(len(batches[0]))]
    by_batch = [sum(map(work, times)) for times in batches]
    found = critical_path_s(batches, max_in_flight)
    assert max(*by_stage, *by_batch) <= found <= sum(by_batch)
    assert critical_path_s(batches, 1) == sum(by_batch)


def test_a_step_without_micro_batches_takes_no_time() -> None:
    assert critical_path_s([], 3) == 0.0


def test_three_stages_of_equal_work_are_bounded_by_what_is_in_flight() -> None:
    batches = [[StageSeconds(1.0, 2.0)] * 3] * 6
    # one micro-batch takes 3 + 6; the other five follow every 3 if the first stage is never without work
    assert critical_path_s(batches, 1) == 54.0
    assert critical_path_s(batches, 4) == 24.0
    assert critical_path_s(batches, 2) > critical_path_s(batches, 3) >= 24.0


def test_the_calls_of_three_stages_are_told_apart() -> None:
    lanes = [Lane(trace) for trace in step_of_three_stages()]
    (step,) = step_windows(lanes, None)
    found = stage_times(lanes, step, CHAIN)
    assert [stage.agent for stage in found.stages] == list(CHAIN)
    assert [(len(stage.forward), len(stage.backward)) for stage in found.stages] == [(2, 2), (2, 2), (2, 0)]
    assert found.stages[2].forward[0] == StageTime(pytest.approx(0.020), pytest.approx(0.0))
    assert found.num_micro_batches == 2
    assert critical_path_s(found.for_schedule(), 2) == pytest.approx(0.080), "as in the trace, which has no gaps"
    assert critical_path_s(found.for_schedule({"second": 0.5}), 2) == pytest.approx(0.070)


def test_a_stage_without_a_trace_has_no_micro_batches() -> None:
    lanes = [Lane(trace) for trace in step_of_three_stages()[:-1]]
    (step,) = step_windows(lanes, None)
    assert stage_times(lanes, step, CHAIN).num_micro_batches == 0


def test_a_stage_that_trains_nothing_has_no_backward() -> None:
    traces = step_of_three_stages()
    first = traces[1]
    first.spans = [span for span in first.spans if "backward" not in span.name]
    lanes = [Lane(trace) for trace in traces]
    (step,) = step_windows(lanes, None)
    found = stage_times(lanes, step, CHAIN)
    assert found.num_micro_batches == 2
    assert [times[0].backward_s for times in found.for_schedule()] == [None, None]
    assert critical_path_s(found.for_schedule(), 2) == pytest.approx(0.070), "without the last backward of 10 ms"


def advice_of_three_stages(num_cores: int = 3, **training: Any) -> dict[str, float]:
    """Gain in seconds by change, in the step of three stages; no agent keeps a graph."""
    agent = {"environment": "sd3", "kind": "sd3", "recompute": True}
    config = TrainConfig.model_validate(
        {
            "clip": {"num_frames": 9, "height": 64, "width": 64, "fps": 8},
            "agents": dict.fromkeys(CHAIN, agent),
            "training": {"batch_size": 2, "micro_batch_size": 1, **training},
        }
    )
    traces = step_of_three_stages()
    lanes = [Lane(trace) for trace in traces]
    measured = Measured(config, traces, lanes, step_windows(lanes, None), num_cores)
    return {advice.change: advice.gain_s for advice in ranked_advice(measured)}


def test_more_micro_batches_in_flight_are_advised_for_three_stages() -> None:
    found = advice_of_three_stages(pipeline={"max_in_flight": 1})
    assert found["training.pipeline.max_in_flight: 1 -> 2"] == pytest.approx(0.120 - 0.080)
    assert not [change for change in advice_of_three_stages() if "max_in_flight" in change], "four are in flight"


def test_keeping_the_graph_is_advised_for_every_stage_that_runs_its_forward_again() -> None:
    found = {change: gain_s for change, gain_s in advice_of_three_stages().items() if "recompute" in change}
    # the backward of 10 ms would take none; of the second agent's, only the second one is on the critical path
    assert found == {
        "agents.first.recompute: true -> false": pytest.approx(0.010),
        "agents.second.recompute: true -> false": pytest.approx(0.010),
    }, "the last agent runs its backward at once"


def test_more_threads_are_advised_for_any_stage_with_free_cores() -> None:
    found = {change: gain_s for change, gain_s in advice_of_three_stages(6).items() if "num_threads" in change}
    assert found == {
        "agents.first.num_threads: 1 -> 2": pytest.approx(0.010),
        "agents.second.num_threads: 1 -> 2": pytest.approx(0.010),
        "agents.third.num_threads: 1 -> 2": pytest.approx(0.020),
    }
    assert not [change for change in advice_of_three_stages(3) if "num_threads" in change]


def test_the_bubble_of_three_stages() -> None:
    lanes = [Lane(trace) for trace in step_of_three_stages()]
    (step,) = step_windows(lanes, None)
    found = bubble(lanes, step)
    assert found.share == pytest.approx(0.5), "three servers of 80 ms, each computes 40"
    assert found.imbalance_share == 0.0
    seconds = found.seconds()
    assert seconds["first.0"] == pytest.approx({"fill": 0.0, "between": 0.040, "drain": 0.0})
    assert seconds["second.0"] == pytest.approx({"fill": 0.010, "between": 0.020, "drain": 0.010})
    assert seconds["third.0"] == pytest.approx({"fill": 0.020, "between": 0.0, "drain": 0.020})
