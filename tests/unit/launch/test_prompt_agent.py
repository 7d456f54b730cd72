"""The prompt agent: offline rules, or a language model behind an endpoint with any answer or none."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from chat_endpoint import SILENCE, ChatEndpoint, chat_endpoint
from mora_launch.chat.endpoint import Chat
from mora_launch.chat.prompt_agent import PromptAgent, prompt_agent
from mora_launch.serving.counters import Counters
from mora_launch.serving.settings import PromptAgentSettings
from mora_launch.tasks.agents import Agents
from mora_runtime.errors import Cancelled, EndpointFailed


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatEndpoint]:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with chat_endpoint() as server:
        yield server


def settings_of(endpoint: ChatEndpoint, **changes: Any) -> PromptAgentSettings:
    settings = {"model": "tiny", "timeout_s": 10.0, "max_retries": 0} | changes
    return PromptAgentSettings(kind="openai", base_url=endpoint.base_url, **settings)


def agent(endpoint: ChatEndpoint, **changes: Any) -> PromptAgent:
    return prompt_agent(settings_of(endpoint, **changes))


def ask(agent: PromptAgent, prompt: str = "a red circle") -> str:
    return asyncio.run(agent.enhance(prompt))


def test_rules_make_a_sentence_and_leave_long_wishes_unchanged() -> None:
    rules = prompt_agent(PromptAgentSettings())
    said = ask(rules, "  a red\n circle ")
    assert said.startswith("A red circle. The scene is")
    assert ask(rules, said) == said
    assert ask(rules, "word " * 40) == " ".join(["word"] * 40)


def test_a_model_is_asked_with_the_wish_and_its_description_is_taken(endpoint: ChatEndpoint) -> None:
    endpoint.answers = ['  "A red circle on white paper,\nsoft light." ']
    assert ask(agent(endpoint)) == "A red circle on white paper, soft light."
    (asked,) = endpoint.asked
    assert asked["model"] == "tiny"
    assert asked["messages"][-1] == {"role": "user", "content": "a red circle"}


def test_key_temperature_and_length_come_from_the_settings(
    endpoint: ChatEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_API_KEY", "secret")
    endpoint.answers = ["A red circle."]
    ask(agent(endpoint))
    ask(agent(endpoint, api_key_variable="MY_API_KEY", temperature=0.5, max_tokens=90))
    assert endpoint.keys == ["Bearer none", "Bearer secret"]
    asked = [(each.get("temperature"), each.get("max_tokens")) for each in endpoint.asked]
    assert asked == [(None, None), (0.5, 90)]


def test_without_an_address_openai_is_asked_which_needs_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(EndpointFailed, match=r"gpt-4o at OpenAI: it needs a key; .* OPENAI_API_KEY is set"):
        ask(prompt_agent(PromptAgentSettings(kind="openai")))


def test_with_or_without_an_event_loop_a_question_has_the_same_body_and_headers(
    endpoint: ChatEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_API_KEY", "secret")
    monkeypatch.setenv("OPENAI_ORG_ID", "an organisation")
    endpoint.answers = [' "A red circle." ']
    settings = settings_of(endpoint, api_key_variable="MY_API_KEY", temperature=0.5)
    assert ask(prompt_agent(settings)) == "A red circle."
    assert Chat(settings, "a test").ask(endpoint.asked[0]["messages"]) == ' "A red circle." '
    assert endpoint.asked[0] == endpoint.asked[1]
    agents = [headers.pop("user-agent") for headers in endpoint.headers]
    assert endpoint.headers[0] == endpoint.headers[1], agents
    assert endpoint.keys == ["Bearer secret"] * 2


def test_refusals_redirects_and_a_missing_key_are_errors(
    endpoint: ChatEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint.answers = [(500, b"{}"), (200, b'{"choices": []}'), (302, b"")]
    endpoint.location = endpoint.base_url
    for text in ("Error code: 500", "is not a chat completion", "Error code: 302"):
        with pytest.raises(EndpointFailed, match=text):
            ask(agent(endpoint))
    with pytest.raises(EndpointFailed, match="it needs a key"):
        ask(prompt_agent(PromptAgentSettings(kind="openai")))


def test_a_question_that_is_cancelled_closes_its_connection(endpoint: ChatEndpoint) -> None:
    endpoint.answers = [SILENCE]

    async def ask_and_cancel() -> None:
        task = asyncio.ensure_future(agent(endpoint).enhance("a red circle"))
        while not endpoint.asked:
            await asyncio.wait([task], timeout=0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(ask_and_cancel())
    assert endpoint.num_left.acquire(timeout=5), "the connection is still open"


def test_a_cancelled_task_takes_its_question_back(endpoint: ChatEndpoint) -> None:
    endpoint.answers = [SILENCE]
    pool: Any = SimpleNamespace(counters=Counters())
    asking = Agents(pool, agent(endpoint), sampling={}, deadline_s=5, is_cancelled=lambda: bool(endpoint.asked))
    with pytest.raises(Cancelled):
        asking.enhance("a red circle")
    assert endpoint.num_left.acquire(timeout=5), "the connection is still open"


@pytest.mark.parametrize("text", ["", None, " \n ", "Sure! " * 1000])
def test_an_empty_answer_leaves_the_wish_unchanged(endpoint: ChatEndpoint, text: str | None) -> None:
    endpoint.answers = [text]
    assert ask(agent(endpoint)) == "a red circle"


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (500, {"error": {"message": "out of\nmemory"}}, "Error code: 500"),
        (404, {"error": {"message": "no model `tiny`"}}, "no model `tiny`"),
        (200, b"<html>\n welcome </html>", "is not a chat completion"),
        (200, {"choices": []}, "is not a chat completion"),
        (200, {"hello": "world"}, "is not a chat completion"),
    ],
)
def test_an_endpoint_with_an_invalid_answer_is_named_in_one_line(
    endpoint: ChatEndpoint, status: int, body: Any, said: str
) -> None:
    endpoint.answers = [(status, body if isinstance(body, bytes) else json.dumps(body).encode())]
    with pytest.raises(EndpointFailed, match=said) as caught:
        ask(agent(endpoint))
    assert "\n" not in str(caught.value)
    assert f": tiny at {endpoint.base_url}: " in str(caught.value)


def test_an_endpoint_that_is_slow_or_down_is_named_in_one_line(endpoint: ChatEndpoint) -> None:
    endpoint.answers = [SILENCE]
    with pytest.raises(EndpointFailed, match="timed out"):
        ask(agent(endpoint, timeout_s=0.1))
    assert len(endpoint.asked) == 1
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        settings = PromptAgentSettings(
            kind="openai", base_url=f"http://127.0.0.1:{nobody.getsockname()[1]}/v1", max_retries=0
        )
        with pytest.raises(EndpointFailed, match=r"^prompt agent \(serving\.prompts.*Connection error"):
            ask(prompt_agent(settings))
