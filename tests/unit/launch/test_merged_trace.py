"""One trace of many processes: files of roles that succeeded or died, arrows, and torch's clock compared with ours."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hand_made_trace import flow, one_step, span
from mora_launch.profiling.merged_trace import merged_events, write_merged_trace
from mora_launch.profiling.role_trace import RoleTrace, read_role_trace
from mora_launch.profiling.torch_ops import CLOCK_MARK, read_torch_ops
from mora_runtime.errors import TraceError

HEAD = ["M", 1, "video.0", 7, 7]


def write_lines(path: Path, *lines: list[Any], tail: str = "") -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + tail, encoding="utf-8")
    return path


def test_a_file_is_read_whole(tmp_path: Path) -> None:
    move = {"nbytes": 64, "from": "video.0.1.ab", "to": "coordinator.0.1.cd#2", "spent_ns": 3}
    path = write_lines(
        tmp_path / "video.0.jsonl",
        HEAD,
        ["T", 7, "MainThread"],
        ["X", "loss", "compute", 100, 50, 7, {"cpu_ns": 40}],
        ["s", "a>1", "message", 120, 0, 7, None],
        ["i", "copied", "move", 130, 0, 7, move],
        ["C", "cpu", "counter", 140, 0, 8, {"cores": 0.5}],
        ["E", 3],
    )
    trace = read_role_trace(path)
    assert (trace.role, trace.name, trace.replica) == ("video.0", "video", 0)
    assert (trace.is_complete, trace.num_dropped) == (True, 3)
    assert (trace.spans[0].end_ns, trace.spans[0].args) == (150, {"cpu_ns": 40})
    assert (trace.moves[0].source, trace.moves[0].target) == ("video.0", "coordinator.0")
    assert trace.samples[0].values == {"cores": 0.5}


def test_the_file_of_a_killed_role_gives_all_events_before_its_death(tmp_path: Path) -> None:
    path = write_lines(
        tmp_path / "video.0.jsonl",
        HEAD,
        ["B", "loss", "compute", 100, 0, 7, None],
        ["X", "loss", "compute", 100, 50, 7, None],
        ["B", "backward", "compute", 160, 0, 7, None],
        ["C", "cpu", "counter", 190, 0, 8, {"cores": 1.0}],
        ["B", "backward", "compute", 160, 0, 7, None],
        tail='["X", "backw',
    )
    trace = read_role_trace(path)
    assert not trace.is_complete
    assert [(s.name, s.start_ns, s.end_ns, s.is_cut) for s in trace.spans] == [
        ("loss", 100, 150, False),
        ("backward", 160, 190, True),
    ]


@pytest.mark.parametrize("content", ["", "{}\n", '["M", 99, "video.0", 7, 7]\n', '["M", 1, "v.0", 7, 7]\n["?", 1]\n'])
def test_an_invalid_trace_is_refused_by_name(tmp_path: Path, content: str) -> None:
    path = tmp_path / "video.0.jsonl"
    path.write_text(content)
    with pytest.raises(TraceError, match=r"video\.0\.jsonl: is not a trace"):
        read_role_trace(path)


def test_every_arrow_has_two_ends_in_the_right_processes() -> None:
    traces = one_step()
    traces[2].flows.append(flow("never taken", 71, is_start=True))
    traces[0].flows.append(flow("never sent", 72, is_start=False))
    events = list(merged_events(traces))
    starts = {event["id"]: event for event in events if event["ph"] == "s"}
    ends = {event["id"]: event for event in events if event["ph"] == "f"}
    assert len(starts) == 6
    assert starts.keys() == ends.keys()
    assert all(starts[number]["ts"] <= ends[number]["ts"] for number in starts)
    assert (starts[1]["pid"], ends[1]["pid"]) == (100, 101)


def test_the_merged_file_is_json_on_one_clock(tmp_path: Path) -> None:
    number = write_merged_trace(tmp_path / "trace.json.gz", one_step(), [])
    with gzip.open(tmp_path / "trace.json.gz", "rt") as file:
        events = json.load(file)["traceEvents"]
    assert len(events) == number
    names = {event["args"]["name"] for event in events if event["name"] == "process_name"}
    assert names == {"coordinator.0", "image.0", "video.0"}
    forward = next(event for event in events if event["name"] == "image.forward")
    assert (forward["ts"], forward["dur"], forward["cat"]) == (10_000.0, 20_000.0, "compute")


def torch_file(path: Path, marks_us: list[float]) -> Path:
    """A torch profile whose clock is 1,000 s ahead of ours; each mark takes 2 us."""
    marks = [
        {"ph": "X", "cat": "user_annotation", "name": CLOCK_MARK, "ts": 1e9 + at, "dur": 2.0, "pid": 7, "tid": 7}
        for at in marks_us
    ]
    op = {"ph": "X", "cat": "cpu_op", "name": "aten::mm", "ts": 1e9 + 500.0, "dur": 30.0, "pid": 7, "tid": 7}
    path.write_text(json.dumps({"traceEvents": [*marks, op, {"ph": "M", "name": "process_name"}]}))
    return path


def marked(ours_us: list[tuple[float, float]]) -> RoleTrace:
    trace = RoleTrace("video.0", 7, 7)
    trace.spans = [span(CLOCK_MARK, "protocol", at / 1e3, (at + spent) / 1e3) for at, spent in ours_us]
    return trace


def test_torchs_times_are_moved_onto_our_clock(tmp_path: Path) -> None:
    # ours enclose torch's: 1 us on either side; the first took long to start and must not count
    trace = marked([(40.0, 62.0), (199.0, 4.0), (899.0, 4.0)])
    ops = read_torch_ops(torch_file(tmp_path / "t.json", [100.0, 200.0, 900.0]), trace)
    assert [(op.name, op.start_ns) for op in ops.ops] == [("aten::mm", pytest.approx(500_000, abs=1))]
    assert ops.alignment_error_ns <= 1


def test_a_drifting_clock_is_reported(tmp_path: Path) -> None:
    trace = marked([(199.0, 4.0), (929.0, 4.0)])  # 30 us further apart than torch saw them
    assert read_torch_ops(torch_file(tmp_path / "t.json", [200.0, 900.0]), trace).alignment_error_ns == pytest.approx(
        15_000, abs=1
    )


def test_marks_that_do_not_pair_up_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match=r"video\.0: expected as many clock marks .*, got 1 and 2"):
        read_torch_ops(torch_file(tmp_path / "t.json", [200.0, 900.0]), marked([(199.0, 4.0)]))
