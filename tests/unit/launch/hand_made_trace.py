"""Hand-made traces of one step: times in ms, so that every share is easy to compute by hand.

`one_step`: one micro-batch through two stages.

coordinator  0 step ......................................... 100
image        [forward 10-30]                [backward 70-90]
video                      [loss 30-70]
pipeline     0 ............................................. 90

`step_of_three_stages`: two micro-batches, of which the second is marked by a dash.

coordinator  0 step ................................. 100
first        [forward 0-10] [-20]             [backward 50-60]     [- 70-80]
second          [forward 10-20] [-30]  [backward 40-50]  [- 60-70]
third                  [loss 20-40] [- 40-60]
pipeline     0 ...................................... 80
"""

from typing import Any

from mora_launch.profiling.role_trace import FlowEnd, RoleTrace, TraceSpan

MS = 1_000_000


def span(name: str, category: str, start: float, end: float, **args: Any) -> TraceSpan:
    return TraceSpan(name, category, round(start * MS), round(end * MS), 1, args)


def flow(key: str, at: float, *, is_start: bool) -> FlowEnd:
    return FlowEnd(key, is_start, round(at * MS), 1)


def server(role: str, pid: int, calls: list[tuple[str, float, float]]) -> RoleTrace:
    """A server that waits while it runs no call."""
    trace = RoleTrace(role, pid, 1, {1: "MainThread"}, is_complete=True)
    now = 0.0
    for name, start, end in calls:
        trace.spans.append(span("wait for calls", "wait", now, start))
        trace.spans.append(span(name, "compute", start, end, cpu_ns=round((end - start) * MS)))
        trace.spans.append(span(f"call {name}", "protocol", start, end))
        now = end
    trace.spans.append(span("wait for calls", "wait", now, 100))
    return trace


def one_step() -> list[RoleTrace]:
    """Coordinator, image and video server of one micro-batch."""
    coordinator = RoleTrace("coordinator.0", 100, 1, {1: "MainThread"}, is_complete=True)
    coordinator.spans += [
        span("send image.forward", "protocol", 0, 10),
        span("wait for any", "wait", 10, 90),
        span("micro-batches", "protocol", 0, 90),
        span("step", "protocol", 0, 100, step=0),
    ]
    image = server("image.0", 101, [("image.forward", 10, 30), ("backward", 70, 90)])
    video = server("video.0", 102, [("video.loss", 30, 70)])
    hops = [
        (coordinator, image, 9.9, 10.0),
        (image, coordinator, 29.8, 29.9),
        (coordinator, video, 29.91, 30.0),
        (video, coordinator, 69.8, 69.9),
        (coordinator, image, 69.91, 70.0),
        (image, coordinator, 89.8, 89.9),
    ]
    for number, (source, target, sent, taken) in enumerate(hops):
        source.flows.append(flow(f"m{number}", sent, is_start=True))
        target.flows.append(flow(f"m{number}", taken, is_start=False))
    return [coordinator, image, video]


def step_of_three_stages() -> list[RoleTrace]:
    """Coordinator and three servers of two micro-batches, without messages: 10 ms a call, 20 ms a loss."""
    coordinator = RoleTrace("coordinator.0", 100, 1, {1: "MainThread"}, is_complete=True)
    coordinator.spans += [span("micro-batches", "protocol", 0, 80), span("step", "protocol", 0, 100, step=0)]
    calls = {
        "first": [("forward", 0, 10), ("forward", 10, 20), ("backward", 50, 60), ("backward", 70, 80)],
        "second": [("forward", 10, 20), ("forward", 20, 30), ("backward", 40, 50), ("backward", 60, 70)],
        "third": [("loss", 20, 40), ("loss", 40, 60)],
    }
    servers = [
        server(f"{agent}.0", 101 + number, [(_full_name(agent, name), start, end) for name, start, end in spans])
        for number, (agent, spans) in enumerate(calls.items())
    ]
    return [coordinator, *servers]


def _full_name(agent: str, name: str) -> str:
    return name if name == "backward" else f"{agent}.{name}"
