"""The arithmetic of a profile, on a trace with known shares."""

import json
from itertools import pairwise
from pathlib import Path

import pytest
from hand_made_trace import MS, flow, one_step, span
from mora_launch.config.train_config import TrainConfig, load_config
from mora_launch.profiling.advice import Measured, ranked_advice
from mora_launch.profiling.bubble import bubble
from mora_launch.profiling.critical_path import critical_path
from mora_launch.profiling.lane import Lane, flattened
from mora_launch.profiling.message import matched_messages
from mora_launch.profiling.report.page import summary_page
from mora_launch.profiling.report.summary import summarise
from mora_launch.profiling.role_trace import Move, RoleTrace
from mora_launch.profiling.schedule import StageSeconds, critical_path_s
from mora_launch.profiling.step_window import step_windows

ROOT = Path(__file__).resolve().parents[3]


def config(*changes: str) -> TrainConfig:
    return load_config(ROOT / "configs" / "tiny.yaml", list(changes))


def test_each_moment_belongs_to_the_innermost_span() -> None:
    spans = [span("outer", "protocol", 0, 10), span("inner", "copy", 2, 5), span("deep", "compute", 3, 4)]
    pieces = [(p.start_ns / MS, p.end_ns / MS, p.span.name) for p in flattened(spans)]
    assert pieces == [(0, 2, "outer"), (2, 3, "inner"), (3, 4, "deep"), (4, 5, "inner"), (5, 10, "outer")]


def test_shares_add_up_to_the_window_and_include_uncovered_time() -> None:
    trace = RoleTrace("image.0", 1, 1, spans=[span("call", "protocol", 10, 60), span("work", "compute", 20, 50)])
    shares = Lane(trace).shares(0, 100 * MS)
    assert shares == {"compute": 0.03, "copy": 0.0, "wait": 0.0, "protocol": 0.02, "io": 0.0, "untraced": 0.05}


def test_the_bubble_of_a_known_step() -> None:
    lanes = [Lane(trace) for trace in one_step()]
    (step,) = step_windows(lanes, None)
    found = bubble(lanes, step)
    assert found.share == pytest.approx(100 / 180), "two servers of 90 ms, each computes 40"
    assert found.imbalance_share == 0.0, "both have as much work, so a better schedule could remove all of it"
    seconds = found.seconds()
    assert seconds["image.0"] == pytest.approx({"fill": 0.010, "between": 0.040, "drain": 0.0})
    assert seconds["video.0"] == pytest.approx({"fill": 0.030, "between": 0.0, "drain": 0.020})


def test_the_critical_path_goes_from_role_to_role_and_has_no_gap() -> None:
    traces = one_step()
    lanes = [Lane(trace) for trace in traces]
    (step,) = step_windows(lanes, None)
    path = critical_path(lanes, matched_messages(traces), step)
    assert path[0].start_ns == step.start_ns
    assert path[-1].end_ns == step.end_ns
    assert all(before.end_ns == after.start_ns for before, after in pairwise(path))
    computes = [(piece.role, piece.name, piece.spent_ns / MS) for piece in path if piece.category == "compute"]
    assert computes == [
        ("image.0", "image.forward", pytest.approx(19.8)),
        ("video.0", "video.loss", pytest.approx(39.8)),
        ("image.0", "backward", pytest.approx(19.8)),
    ]


def test_a_busy_server_delays_itself() -> None:
    traces = one_step()
    image = traces[1]
    image.spans = [span("image.forward", "compute", 0, 70), span("backward", "compute", 70, 90)]
    traces[0].flows[-2] = flow("m4", 60, is_start=True)  # the backward was sent while the server was still busy
    lanes = [Lane(trace) for trace in traces]
    (step,) = step_windows(lanes, None)
    path = critical_path(lanes, matched_messages(traces), step)
    assert not any(piece.role == "video.0" for piece in path), "the image server never waited for the video server"


def test_warm_up_and_the_step_of_torchs_profiler_do_not_count() -> None:
    trace = RoleTrace("coordinator.0", 1, 1)
    trace.spans = [span("step", "protocol", 10 * k, 10 * k + 9, step=k) for k in range(4)]
    reasons = [window.left_out for window in step_windows([Lane(trace)], 3)]
    assert reasons == ["warm-up", "", "", "torch profiler"]
    trace.spans = trace.spans[:1]
    assert [window.left_out for window in step_windows([Lane(trace)], 0)] == [""], "there is no other to look at"


def test_the_summary_sums_bytes_by_kind_and_edge_of_counted_steps() -> None:
    traces = one_step()
    traces[1].moves = [
        Move("copied", 1000, "image.0", "coordinator.0", 0, 29 * MS, 1),
        Move("copied", 7, "image.0", "coordinator.0", 0, 500 * MS, 1),  # after the step
    ]
    traces[0].moves = [Move("reference", 1000, "image.0", "video.0", 0, 30 * MS, 1)]
    summary = summarise(traces, config(), torch_step=None, num_cores=2)
    assert summary["bytes"]["by_kind"] == {
        "inline": 0.0, "copied": 1000.0, "resident": 0.0, "reference": 1000.0, "spilled": 0.0,
        "device": 0.0, "staged": 0.0,
    }  # fmt: skip
    assert [(edge["from"], edge["to"]) for edge in summary["bytes"]["by_edge"]] == [
        ("image.0", "coordinator.0"),
        ("image.0", "video.0"),
    ]
    assert summary["gpu"] == "no GPU"
    assert summary["mean"]["wall_s"] == pytest.approx(0.1)
    for role, spent in summary["mean"]["roles"].items():
        assert sum(spent["shares"].values()) == pytest.approx(1.0), role
    assert sum(entry["spent_s"] for entry in summary["mean"]["critical_path"]) == pytest.approx(0.1)
    json.dumps(summary, allow_nan=False)


def test_a_job_that_ended_before_its_first_step_has_a_page_that_says_so() -> None:
    traces = one_step()
    traces[0].spans = []
    lanes = [Lane(trace) for trace in traces]
    summary = summarise(traces, config(), torch_step=None, num_cores=2)
    assert summary["mean"] == {}
    assert summary["advice"] == []
    assert "No step came to its end" in summary_page("tiny", summary, lanes, [], [])


def test_the_page_needs_nothing_else_and_names_the_bubble() -> None:
    traces = one_step()
    lanes = [Lane(trace) for trace in traces]
    summary = summarise(traces, config(), torch_step=None, num_cores=2)
    page = summary_page("<tiny>", summary, lanes, matched_messages(traces), step_windows(lanes, None))
    assert "bubble: waits 40 ms" in page
    assert "&lt;tiny&gt;" in page
    assert "<tiny>" not in page
    assert not [word for word in ("http:", "https:", "src=", "<script", "@import") if word in page]


def test_the_schedule_of_two_micro_batches_overlaps_what_max_in_flight_allows() -> None:
    batch = (StageSeconds(1.0, 1.0), StageSeconds(2.0, 0.0))
    assert critical_path_s([batch, batch], 1) == 8.0
    assert critical_path_s([batch, batch], 2) == 6.0, "1 + 2 + 2 + 1: the video server never waits"


def advice_of(traces: list[RoleTrace], *changes: str, num_cores: int = 2) -> dict[str, float]:
    lanes = [Lane(trace) for trace in traces]
    measured = Measured(config(*changes), traces, lanes, step_windows(lanes, None), num_cores)
    return {advice.change: advice.gain_s for advice in ranked_advice(measured)}


def test_smaller_micro_batches_are_advised_if_servers_take_turns() -> None:
    found = advice_of(one_step(), "training.batch_size=4", "training.micro_batch_size=4")
    # a fifth of a call does not shrink, so half of the samples take 12 + 24 + 12 ms instead of 20 + 40 + 20; two of
    # them keep the video server busy for 48 ms, with 12 ms before and 12 after
    assert found["training.micro_batch_size: 4 -> 2"] == pytest.approx(0.080 - 0.072, abs=1e-6)
    assert "training.micro_batch_size: 4 -> 1" not in found, "four of 8 + 16 + 8 ms take as long as one"


def test_more_threads_are_advised_only_if_cores_are_free() -> None:
    wanted = "agents.video.num_threads: 1 -> 2"
    assert wanted not in advice_of(one_step(), num_cores=2)
    assert advice_of(one_step(), num_cores=4)[wanted] == pytest.approx(0.020)


def test_a_full_arena_is_reported_with_its_cost() -> None:
    traces = one_step()
    traces[2].moves = [Move("spilled", 4096, "video.0", "coordinator.0", 8 * MS, 60 * MS, 1)]
    assert advice_of(traces)["agents.video.arena_nbytes: raise by 4096"] == pytest.approx(0.008)


def test_cores_taken_away_by_the_host_are_reported() -> None:
    traces = one_step()
    loss = next(s for s in traces[2].spans if s.name == "video.loss")
    loss.args["cpu_ns"] = 10 * MS  # of 40
    assert advice_of(traces, "pin_cores=false")["pin_cores: false -> true"] == pytest.approx(0.030)
