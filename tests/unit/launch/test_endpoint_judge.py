"""A judge behind an endpoint that answers, answers prose, is slow, is broken, or is not there."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from mora_launch.rounds.criteria import CRITERIA
from mora_launch.rounds.endpoint_judge import EndpointJudge
from mora_launch.rounds.judge import Question
from mora_launch.rounds.settings import EndpointSettings, JudgeSettings
from mora_trainer.clips import made_clip
from mora_trainer.settings import ClipShape

SHAPE = ClipShape(num_frames=9, height=64, width=64, fps=8)
QUESTION = Question("a red circle", CRITERIA["flicker"], tuple(made_clip(index, SHAPE)[1] for index in range(3)))
GOOD = "I looked.\nRANKING: 2 > 3 > 1"


class Endpoint(ThreadingHTTPServer):
    """Gives its answers in turn, the last one for ever; a tuple is a status and a body, None is silence."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: list[str | tuple[int, str] | None] = []
        self.requests: list[dict[str, Any]] = []
        self.ended = threading.Event()


class Handler(BaseHTTPRequestHandler):
    server: Endpoint

    def do_POST(self) -> None:
        self.server.requests.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        answers = self.server.answers
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if answer is None:
            self.server.ended.wait(30)
            return
        if isinstance(answer, str):
            message = {"role": "assistant", "content": answer}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            whole = {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
            answer = 200, json.dumps(whole)
        self.send_response(answer[0])
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(answer[1].encode())

    def log_message(self, *_: object) -> None:
        """Say nothing on the terminal."""


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with Endpoint() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.ended.set()
        server.shutdown()
        thread.join(10)


def judge(endpoint: Endpoint, **changes: Any) -> EndpointJudge:
    url = f"http://127.0.0.1:{endpoint.server_port}/v1"
    settings = EndpointSettings(**{"base_url": url, "model": "m", "max_retries": 0, "timeout_s": 20.0, **changes})
    return EndpointJudge(JudgeSettings(kind="endpoint", endpoint=settings, num_frames=2))


def test_it_shows_every_candidate_and_reads_the_ranking(endpoint: Endpoint) -> None:
    endpoint.answers = [GOOD]
    answer = judge(endpoint).rank(QUESTION)
    assert answer.ranking == (1, 2, 0)
    assert answer.raw == (GOOD,)
    (content,) = (message["content"] for message in endpoint.requests[0]["messages"])
    assert [part["text"] for part in content if part.get("text", "").startswith("Video")] == [
        "Video 1:", "Video 2:", "Video 3:",
    ]  # fmt: skip
    pictures = [part["image_url"]["url"] for part in content if part["type"] == "image_url"]
    assert len(set(pictures)) == 6
    assert all(picture.startswith("data:image/png;base64,") for picture in pictures)


def test_prose_is_asked_for_once_more_with_what_was_wrong(endpoint: Endpoint) -> None:
    endpoint.answers = ["They are all nice.", GOOD]
    answer = judge(endpoint).rank(QUESTION)
    assert answer.ranking == (1, 2, 0)
    assert answer.raw == ("They are all nice.", GOOD)
    again = endpoint.requests[1]["messages"]
    assert [message["role"] for message in again] == ["user", "assistant", "user"]
    assert "no line `RANKING" in again[2]["content"]
    endpoint.answers = ["They are all nice."]
    abstained = judge(endpoint).rank(QUESTION)
    assert abstained.ranking is None
    assert len(abstained.raw) == 2
    assert len(endpoint.requests) == 4


@pytest.mark.parametrize(
    "body",
    [
        (500, "{}"), (401, "{}"), (200, ""), (200, "<html>busy</html>"), (200, "{}"), (200, "[]"),
        (200, '{"choices": []}'), (200, '{"choices": [{}]}'), (200, '{"choices": [{"message": {"content": null}}]}'),
        "",
    ],
)  # fmt: skip
def test_what_is_no_answer_is_an_abstention_that_names_the_endpoint(
    endpoint: Endpoint, body: str | tuple[int, str]
) -> None:
    endpoint.answers = [body]
    answer = judge(endpoint).rank(QUESTION)
    assert answer.ranking is None
    assert answer.raw == ()
    assert f"127.0.0.1:{endpoint.server_port}" in answer.note


def test_a_slow_endpoint_is_waited_for_no_longer_than_said(endpoint: Endpoint) -> None:
    endpoint.answers = [None]
    answer = judge(endpoint, timeout_s=0.2, max_retries=1).rank(QUESTION)
    assert answer.ranking is None
    assert "no answer after 2 attempt(s)" in answer.note
    assert len(endpoint.requests) == 2


def test_an_endpoint_that_is_down_is_an_abstention(endpoint: Endpoint) -> None:
    with Endpoint() as other:
        port = other.server_port
    answer = judge(endpoint, base_url=f"http://127.0.0.1:{port}/v1").rank(QUESTION)
    assert answer.ranking is None
    assert f"127.0.0.1:{port}" in answer.note
    assert endpoint.requests == []
