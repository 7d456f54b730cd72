"""What an operator sees of a server: metrics and their dashboard, a line for each request, spans, the trace."""

from __future__ import annotations

import gzip
import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.otlp_collector import DEADLINE_S, CollectedSpan, running_collector

from .conftest import ROOT, Serving, start, stop

DASHBOARD = ROOT / "examples" / "grafana-dashboard.json"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE}-00f067aa0ba902b7-01"
PROMPT = "a secret red circle"
STAGES = {"call text_to_image", "call image_to_video", "wait in queue", "prompt", "encode", "task text_to_video"}


@dataclass
class Watched:
    """A server that was asked for a video, a picture and something wrong, and then ended.

    Attributes:
        metrics: the text of `/metrics` before the end.
        spans: of the video's trace.
        lines: of the front's log.
        events: of the trace of all processes.
    """

    video: dict[str, Any]
    request_id: str
    metrics: str
    spans: list[CollectedSpan]
    lines: list[dict[str, Any]]
    events: list[dict[str, Any]]
    log: str
    token: str


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    folder = tmp_path_factory.mktemp("watched")
    trace = folder / "trace.json.gz"
    with running_collector() as collector:
        options = ("--set", f"serving.tracing.endpoint={collector.endpoint}", "--trace", str(trace))
        serving = start(folder / "serving", *options)
        try:
            video, request_id, metrics = ask(serving)
        finally:
            stop(serving)
        spans = collector.trace(TRACE, names={*STAGES, "POST /v1/videos"})
        events = json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
        log = (serving.run / "logs" / "front.1.jsonl").read_text()
        lines = [json.loads(line) for line in log.splitlines()]
        requests = [line for line in lines if line["event"] == "request"]
        token = (serving.run / "token").read_text()
        yield Watched(video, request_id, metrics, spans, requests, events, log, token)


def ask(serving: Serving) -> tuple[dict[str, Any], str, str]:
    """Ask for a picture, nothing, and a video; return the video, the id of its request, and the metrics."""
    assert serving.images(prompt=PROMPT, seed=1).status_code == 200
    assert serving.images(prompt="").status_code == 400
    body = {"prompt": PROMPT, "seed": 1}
    headers = {"traceparent": TRACEPARENT, "authorization": f"Bearer {(serving.run / 'token').read_text()}"}
    answer = serving.http.post("/v1/videos", json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    video = serving.finished(answer.json()["id"])
    ended = 'mora_request_success_total{code="",finished_reason="completed",kind="text_to_video"} 1.0'
    busy = re.compile(r'mora_server_busy_seconds_total\{part="decode",server="video.0"\} (?!0\.0$)', re.MULTILINE)

    deadline = time.monotonic() + DEADLINE_S
    while not (ended in (metrics := serving.http.get("/metrics").text) and busy.search(metrics) and has_sent(metrics)):
        assert time.monotonic() < deadline, metrics
        time.sleep(0.1)
    return video, answer.headers["x-request-id"], metrics


def has_sent(metrics: str) -> bool:
    """Whether the servers have sent as many bytes as a picture and a clip have."""
    sent = [line for line in metrics.splitlines() if line.startswith("mora_server_tensor_bytes_total")]
    return sum(float(line.split()[-1]) for line in sent) >= 32 * 32 * 3 * (1 + 5)


def test_every_expression_of_the_dashboard_reads_metrics_that_the_server_has(watched: Watched) -> None:
    described = set(re.findall(r"^# TYPE (\S+) (?:gauge|counter)$", watched.metrics, re.MULTILINE))
    histograms = set(re.findall(r"^# TYPE (\S+) histogram$", watched.metrics, re.MULTILINE))
    known = described | {f"{name}{suffix}" for name in histograms for suffix in ("_bucket", "_sum", "_count")}
    panels = json.loads(DASHBOARD.read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    expressions = [target["expr"] for panel in panels for target in panel.get("targets", ())]
    assert len(expressions) > 20
    for expression in expressions:
        read = set(re.findall(r"\bmora_\w+", expression))
        assert read, expression
        assert read <= known, expression
        for labels, name in re.findall(r"by \(([^)]*)\) \((?:rate\()?(mora_\w+)", expression):
            series = [line for line in watched.metrics.splitlines() if line.startswith(f"{name}{{")]
            for label in labels.split(", "):
                assert all(f'{label}="' in line for line in series), (expression, label)


def test_the_table_of_the_manual_has_every_metric_and_no_other(watched: Watched) -> None:
    manual = (ROOT / "docs" / "serving.md").read_text()
    documented = set(re.findall(r"^\| `(mora_\w+)` ", manual, re.MULTILINE))
    found = set(re.findall(r"^# TYPE (mora_\w+) (?:gauge|counter|histogram)$", watched.metrics, re.MULTILINE))
    assert documented == {name for name in found if not name.endswith("_created")}


def test_requests_stages_and_servers_are_counted(watched: Watched) -> None:
    for line in (
        'mora_request_success_total{code="",finished_reason="completed",kind="picture"} 1.0',
        'mora_request_success_total{code="bad_request",finished_reason="refused",kind="picture"} 1.0',
        'mora_e2e_request_latency_seconds_count{kind="text_to_video"} 1.0',
        'mora_request_queue_time_seconds_count{agent="image",stage="text_to_image"} 2.0',
        'mora_stage_seconds_count{agent="front",stage="encode"} 1.0',
        'mora_num_requests_running{unit="video"} 0.0',
        'mora_num_requests_waiting{unit="sample"} 0.0',
    ):
        assert line in watched.metrics.splitlines()
    assert has_sent(watched.metrics)


def test_the_log_has_one_line_for_each_request(watched: Watched) -> None:
    made = [line for line in watched.lines if line["method"] == "POST"]
    assert [(line["path"], line["status"]) for line in made] == [
        ("/v1/images/generations", 200), ("/v1/images/generations", 400), ("/v1/videos", 200),
    ]  # fmt: skip
    assert made[1]["code"] == "bad_request"
    assert (made[2]["job"], made[2]["id"]) == (watched.video["id"], watched.request_id)
    assert all(line["ms"] > 0 for line in made)


def test_a_collector_gets_the_whole_request_under_its_senders_trace(watched: Watched) -> None:
    by_id = {span.span_id: span for span in watched.spans}
    (request,) = [span for span in watched.spans if span.name == "POST /v1/videos"]
    (task,) = [span for span in watched.spans if span.name == "task text_to_video"]
    assert request.parent_span_id == TRACEPARENT.split("-")[2]
    assert request.attributes["http.route"] == "/v1/videos"
    assert request.attributes["mora.request_id"] == watched.request_id
    assert task.parent_span_id == request.span_id
    for span in watched.spans:
        if span.name in STAGES - {"task text_to_video"}:
            assert by_id[span.parent_span_id] == task
            assert task.start_ns <= span.start_ns <= span.end_ns <= task.end_ns


def test_the_trace_of_all_processes_has_the_same_spans_and_leads_to_the_servers_calls(watched: Watched) -> None:
    begun = {
        event["args"]["span_id"]: event
        for event in watched.events
        if event.get("cat") == "request" and event["ph"] == "b"
    }
    for span in watched.spans:
        event = begun[span.span_id]
        assert (event["name"], event["args"]["trace_id"]) == (span.name, TRACE)
    calls = [span for span in watched.spans if span.name.startswith("call ")]
    served = {
        event["args"]["call"]: event
        for event in watched.events
        if event["ph"] == "X" and "call" in event.get("args", ())
    }
    names = {event["pid"]: event["args"]["name"] for event in watched.events if event["name"] == "process_name"}
    for span in calls:
        there, here = served[span.attributes["mora.call"]], begun[span.span_id]
        assert names[there["pid"]] == span.attributes["mora.server"]
        assert here["ts"] <= there["ts"] <= here["ts"] + (span.end_ns - span.start_ns) / 1e3


def test_no_prompt_and_no_token_is_in_metrics_log_spans_and_trace(watched: Watched) -> None:
    told = watched.metrics + watched.log + str(watched.spans) + str(watched.events)
    assert PROMPT not in told
    assert watched.token not in told
