"""`mora profile` through the command line: what a complete, an interrupted and a failed job leave behind."""

import gzip
import json
import signal
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from .mora_process import QUICK, MoraTrain

pytestmark = pytest.mark.timeout(900)

TOYS = "tests/toy_agents/pair.yaml"
ROLES = {"coordinator.0", "image.0", "video.0"}
CATEGORIES = ("compute", "copy", "wait", "protocol", "io")


def profile(output: Path, num_steps: int, *options: str, config: str = "configs/tiny.yaml") -> MoraTrain:
    """`mora profile`; its run is `output`/run."""
    changes = [change for change in QUICK if not change.startswith("training.num_steps")]
    command = ("profile", config, "--steps", str(num_steps), "-o", str(output), *options)
    return MoraTrain(output / "run", changes, command=command)


def events_of(output: Path) -> list[dict[str, Any]]:
    with gzip.open(output / "trace.json.gz", "rt", encoding="utf-8") as file:
        events: list[dict[str, Any]] = json.load(file)["traceEvents"]
    return events


def role_names(events: list[dict[str, Any]]) -> dict[int, str]:
    return {event["pid"]: event["args"]["name"] for event in events if event["name"] == "process_name"}


@pytest.fixture(scope="module")
def profiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two steps, the second with torch's profiler."""
    output = tmp_path_factory.mktemp("profile") / "out"
    code, said = profile(output, 2).finish()
    assert code == 0, said
    assert "what to change first" in said
    return output


@pytest.fixture(scope="module")
def events(profiled: Path) -> list[dict[str, Any]]:
    return events_of(profiled)


def test_every_role_is_in_the_trace_with_its_threads_and_counters(events: list[dict[str, Any]]) -> None:
    roles = role_names(events)
    assert set(roles.values()) == ROLES
    for pid, role in roles.items():
        mine = [event for event in events if event["pid"] == pid]
        assert any(event["name"] == "thread_name" and event["args"]["name"] == "main" for event in mine), role
        assert {"cpu", "arena"} <= {event["name"] for event in mine if event["ph"] == "C"}, role
        assert any(event["name"] == "thread_name" and "torch" in event["args"]["name"] for event in mine), role
    kept = [event["args"] for event in events if event["ph"] == "C" and event["name"] == "activations"]
    assert max(values["nbytes"] for values in kept) > 0
    assert max(values["tickets"] for values in kept) >= 1


def test_every_arrow_has_both_ends_and_goes_forward_in_time(events: list[dict[str, Any]]) -> None:
    starts = {event["id"]: event for event in events if event["ph"] == "s"}
    ends = {event["id"]: event for event in events if event["ph"] == "f"}
    assert len(starts) > 20
    assert starts.keys() == ends.keys()
    for number, start in starts.items():
        assert start["ts"] <= ends[number]["ts"]
        assert start["pid"] != ends[number]["pid"]


def test_spans_of_a_thread_nest(events: list[dict[str, Any]]) -> None:
    threads: dict[tuple[int, int], list[dict[str, Any]]] = defaultdict(list)
    for event in events:
        if event["ph"] == "X" and event["cat"] in CATEGORIES:
            threads[(event["pid"], event["tid"])].append(event)
    assert len(threads) > len(ROLES), "threads beside the main ones record too"
    for spans in threads.values():
        stack: list[float] = []
        for span in sorted(spans, key=lambda each: (each["ts"], -each["dur"])):
            end = span["ts"] + span["dur"]
            while stack and stack[-1] <= span["ts"] + 1e-3:
                stack.pop()
            assert not stack or end <= stack[-1] + 1e-3, span
            stack.append(end)


def test_the_processes_agree_on_the_time_of_a_step(events: list[dict[str, Any]]) -> None:
    """Servers compute for a step between its start and its end on the coordinator's clock."""
    roles = role_names(events)
    spans = [event for event in events if event["ph"] == "X" and event["cat"] in CATEGORIES]
    steps = [span for span in spans if span["name"] == "step"]
    assert [step["args"]["step"] for step in steps] == [0, 1]
    for step in steps:
        names = defaultdict(list)
        for span in spans:
            if step["ts"] <= span["ts"] and span["ts"] + span["dur"] <= step["ts"] + step["dur"]:
                names[(roles[span["pid"]], span["name"])].append(span)
        for role, name in (("image.0", "image.forward"), ("image.0", "backward"), ("video.0", "video.loss")):
            assert len(names[(role, name)]) == 2, f"two micro-batches: {role} {name}"
        first_forward = min(span["ts"] for span in names[("image.0", "image.forward")])
        assert all(span["ts"] > first_forward for span in names[("video.0", "video.loss")])


def test_torchs_operations_are_inside_the_compute_that_ran_them(events: list[dict[str, Any]]) -> None:
    roles = role_names(events)
    (video,) = [pid for pid, role in roles.items() if role == "video.0"]
    mine = [event for event in events if event["pid"] == video and event["ph"] == "X"]
    losses = [event for event in mine if event["name"] == "video.loss"]
    linears = [event for event in mine if event["cat"] == "cpu_op" and event["name"].startswith("aten::linear")]
    inside = [
        op
        for op in linears
        if any(loss["ts"] - 50 <= op["ts"] and op["ts"] + op["dur"] <= loss["ts"] + loss["dur"] + 50 for loss in losses)
    ]
    assert len(inside) > 10, "microseconds of one clock"


def test_the_summary_accounts_for_all_of_a_step(profiled: Path) -> None:
    summary = json.loads((profiled / "summary.json").read_text())
    assert summary["num_steps"] == 2
    assert [step["left_out"] for step in summary["steps"]] == ["", "torch profiler"]
    assert summary["gpu"] == "no GPU" or set(summary["gpu"]) <= ROLES
    for step in summary["steps"]:
        assert set(step["roles"]) == ROLES
        assert 0.0 <= step["bubble"]["share"] < 1.0
        for role, spent in step["roles"].items():
            assert sum(spent.values()) == pytest.approx(step["wall_s"]), role
            assert spent["untraced_s"] < 0.05 * step["wall_s"], f"{role}: spans miss what it did"
        assert sum(piece["spent_s"] for piece in step["critical_path"]) == pytest.approx(step["wall_s"])
    assert summary["mean"]["roles"]["video.0"]["compute_s"] > 0
    by_edge = {(edge["from"], edge["to"]): edge for edge in summary["bytes"]["by_edge"]}
    assert by_edge[("image.0", "video.0")]["reference"] > 0, "O_1 is handed on, not copied"
    assert summary["torch"].keys() == ROLES
    for role, torch in summary["torch"].items():
        assert torch["num_ops"] > 0, role
        assert torch["alignment_error_ns"] < 1_000_000, "of a step of seconds"
    assert all(state["is_complete"] and state["num_dropped"] == 0 for state in summary["roles"].values())
    assert "<svg" in (profiled / "summary.html").read_text()


def test_profiling_does_not_change_what_is_trained(profiled: Path, finished: Path) -> None:
    for name in ("image/weights", "video/weights", "coordinator"):
        traced, plain = (
            {path.name: path.read_bytes() for path in (run / "checkpoints/step-00000002" / name).glob("*.safetensors")}
            for run in (profiled / "run", finished)
        )
        assert traced
        assert traced == plain, name


def test_the_death_of_a_role_leaves_a_trace_of_the_time_before(tmp_path: Path) -> None:
    job = profile(tmp_path / "out", 5000, "--no-torch-profiler", config=TOYS)
    job.read_until(lambda line: line.startswith("step 2/5000"))
    job.child("video.0").kill()
    code, said = job.finish()
    assert code == 1
    assert "video.0 was killed by SIGKILL, while the job was running" in said
    assert set(role_names(events_of(tmp_path / "out")).values()) == ROLES
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["num_steps"] >= 1
    assert not summary["roles"]["video.0"]["is_complete"]


def test_an_interrupted_profile_is_written_and_not_overwritten(tmp_path: Path) -> None:
    job = profile(tmp_path / "out", 5000, config=TOYS)
    job.read_until(lambda line: line.startswith("step 1/5000"))
    job.process.send_signal(signal.SIGINT)
    code, said = job.finish()
    assert code == 130, said
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert 1 <= summary["num_steps"] < 5000
    assert all(state["is_complete"] for state in summary["roles"].values())
    code, said = profile(tmp_path / "out", 1, config=TOYS).finish()
    assert code == 1
    assert "already contains a profile" in said
