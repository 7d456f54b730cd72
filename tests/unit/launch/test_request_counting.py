"""What is recorded about each request: its outcome, and its line in the log."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mora_launch.limits import MAX_NUM_REVIEWERS
from mora_launch.serving.counters import Counters
from mora_launch.serving.http.counting import Counting
from mora_launch.serving.http.presence import Presence
from mora_launch.serving.http.request_record import note_error, note_job, note_submitted
from mora_launch.web.access import TENANT
from mora_launch.web.asgi import App, Message, Receive, Scope, Send
from mora_runtime.process.logs import start_logging
from mora_runtime.process.run_directory import RunDirectory


def answering(status: int, code: str = "", *, pieces: int = 1) -> App:
    """An application that answers with this status, in this many pieces."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if code:
            note_error(code)
        note_job("video_1")
        await send({"type": "http.response.start", "status": status, "headers": []})
        for number in range(pieces):
            await send({"type": "http.response.body", "body": b"x", "more_body": number + 1 < pieces})

    return app


async def interrupted(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that streams until it hears that the client has left."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"x", "more_body": True})
    assert (await receive())["type"] == "http.disconnect"


async def broken(scope: Scope, receive: Receive, send: Send) -> None:
    raise ValueError("a fault")


def asked(
    app: App, path: str = "/v1/images/generations", method: str = "POST", *, counters: Counters | None = None
) -> tuple[Counters, list[Message]]:
    """Send one request; return what was counted and sent."""
    counters = counters or Counters()
    sent: list[Message] = []
    scope: Scope = {"type": "http", "method": method, "path": path, "headers": [], TENANT: "ann"}

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    async def run() -> None:
        await Counting(app, counters)(scope, receive, send)

    asyncio.run(run())
    return counters, sent


def outcomes(counters: Counters) -> list[tuple[str, str, str]]:
    """Kind, reason and code of every request that was counted."""
    samples = [sample for metric in counters.registry.collect() for sample in metric.samples]
    return [
        (sample.labels["kind"], sample.labels["finished_reason"], sample.labels["code"])
        for sample in samples
        if sample.name == "mora_request_success_total" and sample.value == 1
    ]


@pytest.mark.parametrize(
    ("app", "expected"),
    [
        (answering(200), ("picture", "completed", "")),
        (answering(200, pieces=3), ("picture", "completed", "")),
        (answering(400, "bad_request"), ("picture", "refused", "bad_request")),
        (answering(429, "too_busy"), ("picture", "refused", "too_busy")),
        (answering(503, "server_stopping"), ("picture", "refused", "server_stopping")),
        (answering(500, "agent_failed"), ("picture", "failed", "agent_failed")),
        (answering(503, "server_stopped"), ("picture", "failed", "server_stopped")),
        (answering(503, "peer_died"), ("picture", "failed", "peer_died")),
        (answering(200, "agent_failed"), ("picture", "failed", "agent_failed")),
        (answering(499, "cancelled"), ("picture", "cancelled", "cancelled")),
        (interrupted, ("picture", "cancelled", "cancelled")),
    ],
)  # fmt: skip
def test_a_request_for_pictures_has_one_outcome(app: App, expected: tuple[str, str, str]) -> None:
    counters, _ = asked(app)
    assert outcomes(counters) == [expected]


def test_an_accepted_video_is_counted_when_it_ends_and_a_refused_one_at_once() -> None:
    assert outcomes(asked(answering(200), "/v1/videos")[0]) == []
    assert outcomes(asked(answering(400, "bad_request"), "/v1/videos")[0]) == [("video", "refused", "bad_request")]


@pytest.mark.parametrize(("path", "method"), [("/v1/videos/a/review", "POST"), ("/v1/videos", "GET"), ("/page", "GET")])
def test_requests_that_ask_for_no_work_have_no_outcome(path: str, method: str) -> None:
    assert outcomes(asked(answering(400, "bad_request"), path, method)[0]) == []


def test_an_error_of_the_application_is_counted_and_raised() -> None:
    counters = Counters()
    with pytest.raises(ValueError, match="a fault"):
        asked(broken, counters=counters)
    assert outcomes(counters) == [("picture", "failed", "http_500")]


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Path]:
    handlers, level = logging.getLogger().handlers[:], logging.getLogger().level
    with RunDirectory.create(tmp_path / "run") as directory:
        start_logging(directory, role="front", generation=1)
        yield directory.logs / "front.1.jsonl"
        for handler in logging.getLogger().handlers:
            handler.close()
    logging.getLogger().handlers[:] = handlers
    logging.getLogger().setLevel(level)


def test_a_line_of_the_log_names_request_job_and_tenant_and_cannot_be_forged(log: Path) -> None:
    _, sent = asked(answering(200), "/v1/videos/a\n{}\x1b[31m" + "x" * 500)
    (line,) = [json.loads(each) for each in log.read_text().splitlines()]
    assert (line["method"], line["status"], line["job"], line["tenant"]) == ("POST", 200, "video_1", "ann")
    assert (b"x-request-id", line["id"].encode()) in sent[0]["headers"]
    assert len(line["path"]) < 300
    assert "\x1b" not in line["path"]
    assert "code" not in line
    asked(answering(405), "/v1/videos", "FORGED" * 50)
    assert json.loads(log.read_text().splitlines()[-1])["method"] == "_OTHER"


def test_reviewers_are_known_by_job_and_their_number_is_bounded() -> None:
    presence = Presence()
    assert presence.look("video_1", "Ann") == ["Ann"]
    assert presence.look("video_1", "Ben") == ["Ann", "Ben"]
    assert presence.look("video_2", None) == []
    assert presence.look("video_1", None) == ["Ann", "Ben"]
    for number in range(3 * MAX_NUM_REVIEWERS):
        shown = presence.look("video_3", f"reviewer {number:03}")
    assert len(shown) == MAX_NUM_REVIEWERS
    assert f"reviewer {3 * MAX_NUM_REVIEWERS - 1:03}" in shown


def test_a_reviewer_who_has_left_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 100.0
    monkeypatch.setattr("mora_launch.serving.http.presence.time.monotonic", lambda: now_s)
    presence = Presence()
    presence.look("video_1", "Ann")
    now_s += 5
    assert presence.look("video_1", "Ben") == ["Ann", "Ben"]
    now_s += 2
    assert presence.look("video_1", None) == ["Ben"]


@pytest.mark.parametrize(
    ("path", "expected"),
    [("/v1/images/generations", [1, -1]), ("/v1/images/edits", [1, -1]), ("/v1/videos", []), ("/v1/models", [])],
)
@pytest.mark.parametrize("submits", [True, False])
def test_the_queue_is_told_of_a_picture_until_its_work_has_come(path: str, expected: list[int], submits: bool) -> None:
    told: list[int] = []

    async def endpoint(scope: Scope, receive: Receive, send: Send) -> None:
        assert told == expected[:1]
        if submits:
            note_submitted()
            assert told == expected
        raise ValueError("a fault")

    async def nothing(*_: object) -> Any:
        raise AssertionError

    scope: Scope = {"type": "http", "method": "POST", "path": path, "headers": []}
    with pytest.raises(ValueError, match="a fault"):
        asyncio.run(Counting(endpoint, Counters(), told.append)(scope, nothing, nothing))
    assert told == expected
