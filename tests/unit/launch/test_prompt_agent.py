"""The prompt agent: rules offline, or a language model behind an endpoint that may say anything or nothing."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from mora_launch.serving.settings import PromptAgentSettings
from mora_launch.tasks.prompt_agent import prompt_agent
from mora_runtime.errors import EnvironmentFailed


class Endpoint(ThreadingHTTPServer):
    """A chat server that says what it is told to and remembers what it was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status = 200
        self.body: Any = None
        self.asked: list[dict[str, Any]] = []
        self.answers = threading.Event()
        self.answers.set()

    def says(self, text: str | None) -> None:
        self.body = {"id": "1", "object": "chat.completion", "created": 0, "model": "tiny", "choices": [
            {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
        ]}  # fmt: skip

    def agent(self, **settings: Any) -> Any:
        url = f"http://127.0.0.1:{self.server_port}/v1"
        settings = {"timeout_s": 10.0, "max_retries": 0} | settings
        return prompt_agent(PromptAgentSettings(kind="openai", base_url=url, model="tiny", **settings))


class _Handler(BaseHTTPRequestHandler):
    server: Endpoint

    def do_POST(self) -> None:
        self.server.asked.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
        self.server.answers.wait(10)
        body = self.server.body if isinstance(self.server.body, bytes) else json.dumps(self.server.body).encode()
        kind = "text/html" if isinstance(self.server.body, bytes) else "application/json"
        with contextlib.suppress(ConnectionError):  # who asked has hung up
            self.send_response(self.server.status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with Endpoint() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.answers.set()
        server.shutdown()
        thread.join(10)


def test_rules_make_a_sentence_and_leave_what_is_long_already() -> None:
    agent = prompt_agent(PromptAgentSettings())
    said = agent.enhance("  a red\n circle ")
    assert said.startswith("A red circle. The scene is")
    assert agent.enhance(said) == said
    assert agent.enhance("word " * 40) == " ".join(["word"] * 40)


def test_a_model_is_asked_with_the_wish_and_its_description_is_taken(endpoint: Endpoint) -> None:
    endpoint.says('  "A red circle on white paper,\nsoft light." ')
    assert endpoint.agent().enhance("a red circle") == "A red circle on white paper, soft light."
    (asked,) = endpoint.asked
    assert asked["model"] == "tiny"
    assert asked["messages"][-1] == {"role": "user", "content": "a red circle"}


@pytest.mark.parametrize("text", ["", None, " \n ", "Sure! " * 1000])
def test_an_answer_that_is_none_leaves_the_wish_as_it_is(endpoint: Endpoint, text: str | None) -> None:
    endpoint.says(text)
    assert endpoint.agent().enhance("a red circle") == "a red circle"


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (500, {"error": {"message": "out of\nmemory"}}, "Error code: 500"),
        (404, {"error": {"message": "no model `tiny`"}}, "no model `tiny`"),
        (200, b"<html>\n welcome </html>", "is no chat completion"),
        (200, {"choices": []}, "is no chat completion"),
        (200, {"hello": "world"}, "is no chat completion"),
    ],
)
def test_an_endpoint_that_answers_something_else_is_named_in_one_line(
    endpoint: Endpoint, status: int, body: Any, said: str
) -> None:
    endpoint.status, endpoint.body = status, body
    with pytest.raises(EnvironmentFailed, match=said) as caught:
        endpoint.agent().enhance("a red circle")
    assert "\n" not in str(caught.value)
    assert f"prompt agent tiny at http://127.0.0.1:{endpoint.server_port}/v1" in str(caught.value)


def test_an_endpoint_that_is_slow_or_down_is_named_in_one_line(endpoint: Endpoint) -> None:
    endpoint.answers.clear()
    with pytest.raises(EnvironmentFailed, match="timed out"):
        endpoint.agent(timeout_s=0.1).enhance("a red circle")
    assert len(endpoint.asked) == 1
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        settings = PromptAgentSettings(
            kind="openai", base_url=f"http://127.0.0.1:{nobody.getsockname()[1]}/v1", max_retries=0
        )
        with pytest.raises(EnvironmentFailed, match=r"Connection error.*serving\.prompts\.base_url"):
            prompt_agent(settings).enhance("a red circle")
