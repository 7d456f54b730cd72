"""Spans of requests: their ids in HTTP, their way to a collector, and what switches them on."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from mora_launch.profiling.served_trace import merged_trace
from mora_launch.telemetry import spans
from mora_launch.telemetry.otlp import exporter_of
from mora_launch.telemetry.recording import recording
from mora_launch.telemetry.settings import TracingSettings
from mora_launch.telemetry.span_context import SpanContext
from mora_launch.telemetry.telling_exporter import TellingExporter
from mora_runtime.errors import MoraError, SettingsError
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from rich.console import Console

from tests.otlp_collector import Collector, running_collector

FAILURE, SUCCESS = SpanExportResult.FAILURE, SpanExportResult.SUCCESS
SPANS_IN_A_BATCH = 512  # of OpenTelemetry's SDK
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01"


class Scripted(SpanExporter):
    """An exporter with given results."""

    def __init__(self, results: list[SpanExportResult]) -> None:
        self._results = results
        self.num_batches = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.num_batches += 1
        return self._results[self.num_batches - 1]


def never(line: str) -> None:
    raise AssertionError(f"nothing is wrong, but it said: {line}")


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ENDPOINT", "TRACES_ENDPOINT", "PROTOCOL", "TRACES_PROTOCOL"):
        monkeypatch.delenv(f"OTEL_EXPORTER_OTLP_{name}", raising=False)


@pytest.fixture
def collector() -> Iterator[Collector]:
    with running_collector() as running:
        yield running


def test_the_senders_span_is_read_from_traceparent() -> None:
    found = SpanContext.from_traceparent(PARENT)
    assert found is not None
    assert (found.shown_trace_id, found.shown_span_id, found.is_sampled) == (TRACE, SPAN, True)
    unsampled = SpanContext.from_traceparent(PARENT[:-2] + "00")
    assert unsampled is not None
    assert not unsampled.is_sampled
    assert SpanContext.from_traceparent("01" + PARENT[2:] + "-more") is not None, "a later version may add fields"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "00",
        PARENT + "-more",
        PARENT.upper(),
        "ff" + PARENT[2:],
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
    ],
)  # fmt: skip
def test_an_invalid_traceparent_is_ignored(text: str) -> None:
    assert SpanContext.from_traceparent(text) is None


def test_nothing_is_recorded_without_a_collector() -> None:
    with recording(TracingSettings(), None, never):
        assert spans.active is None
        with spans.span("task") as opened:
            assert opened is None


def failing_task() -> None:
    """A task with a call of 5 ms, after which it fails."""
    with spans.span("task edit", {"mora.video_id": "video_1"}):
        now_ns = time.monotonic_ns()
        spans.past("call", spans.current.get(), now_ns - 5_000_000, now_ns, {"mora.batch_size": 4})
        raise MoraError("it failed")


def test_spans_arrive_with_parents_times_attributes_and_errors(collector: Collector) -> None:
    parent = SpanContext.from_traceparent(PARENT)
    before_ns = time.time_ns()
    with recording(TracingSettings(endpoint=collector.endpoint), None, never):
        token = spans.current.set(parent)
        with pytest.raises(MoraError):
            failing_task()
        spans.current.reset(token)
    call, task = collector.trace(TRACE, names={"call", "task edit"})
    assert (task.parent_span_id, call.parent_span_id) == (SPAN, task.span_id)
    assert (call.end_ns - call.start_ns, call.attributes) == (5_000_000, {"mora.batch_size": 4})
    assert abs(call.end_ns - before_ns) < 60e9, "the collector's clock is the wall clock"
    assert task.attributes == {"mora.video_id": "video_1", "error.type": MoraError.code}
    assert (task.is_error, call.is_error, task.service) == (True, False, "mora")


def test_a_sender_that_wants_no_record_gets_none(collector: Collector) -> None:
    with recording(TracingSettings(endpoint=collector.endpoint), None, never):
        assert spans.active is not None
        unsampled = spans.active.begin("unsampled", SpanContext.from_traceparent(PARENT[:-2] + "00"))
        unsampled.end()
        spans.past("sampled", SpanContext.from_traceparent(PARENT), time.monotonic_ns(), time.monotonic_ns(), {})
    assert [span.name for span in collector.trace(TRACE, names={"sampled"})] == ["sampled"]


def test_the_standard_variable_switches_it_on(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint + "/")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "films")
    with recording(TracingSettings(), None, never):
        spans.past("call", SpanContext.from_traceparent(PARENT), time.monotonic_ns(), time.monotonic_ns(), {})
    assert collector.trace(TRACE, names={"call"})[0].service == "films"
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert exporter_of(TracingSettings(), never) is None


def test_missing_packages_are_named_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(SettingsError, match=r"serving\.tracing\.endpoint: .*mora-launch\[tracing\]") as refused:
        exporter_of(TracingSettings(endpoint="http://127.0.0.1:4318"), never)
    assert "\n" not in str(refused.value)


def test_another_protocol_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    with pytest.raises(SettingsError, match="expected http/protobuf, got grpc"):
        exporter_of(TracingSettings(endpoint="http://127.0.0.1:4317"), never)


@pytest.mark.parametrize("endpoint", ["127.0.0.1:4318", "ftp://host", "http://user@host", "http://a b"])
def test_an_endpoint_is_an_address_without_a_password(endpoint: str) -> None:
    with pytest.raises(ValueError, match="endpoint"):
        TracingSettings(endpoint=endpoint)


def test_a_trace_into_a_missing_folder_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with (
        pytest.raises(SettingsError, match=r"the folder .*none does not exist"),
        merged_trace(tmp_path, tmp_path / "none" / "trace.json.gz", Console(quiet=True)),
    ):
        raise AssertionError("it was not refused")


def test_a_collector_that_is_away_costs_its_spans_alone_and_is_told_once() -> None:
    with running_collector() as collector:
        endpoint = collector.endpoint
    told: list[str] = []
    with recording(TracingSettings(endpoint=endpoint), None, told.append):
        for _ in range(2 * SPANS_IN_A_BATCH):  # several failed attempts
            with spans.span("task edit") as opened:
                assert opened is not None
    assert spans.active is None
    assert told == [
        f"serving.tracing.endpoint: {endpoint}/v1/traces takes no spans. They are lost until it does; requests are not "
        "affected. The log of the run says why"
    ]


def test_a_collector_is_told_again_only_after_it_has_worked() -> None:
    results = [FAILURE, FAILURE, SUCCESS, SUCCESS, FAILURE]
    told: list[int] = []
    exporter = Scripted(results)
    telling = TellingExporter(exporter, lambda: told.append(exporter.num_batches))
    assert [telling.export([]) for _ in results] == results
    assert told == [1, 5]
