"""Prompts that a slow endpoint rewrites occupy no thread, delay no other tenant, and end with their clients."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from chat_endpoint import SILENCE, chat_endpoint
from instant_server import instant_server
from mora_launch.serving.http.requests.prompt_turns import PromptTurns
from mora_runtime.errors import Cancelled, EndpointFailed

NUM_SHARED_THREADS = 40  # of the pool that all requests share


class SlowAgent:
    """Answers when it is told to.

    Attributes:
        asked: prompts that have come.
        taken_back: prompts whose task was cancelled.
    """

    name = "slow"

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.taken_back: list[str] = []
        self.may_answer = asyncio.Event()

    async def enhance(self, prompt: str) -> str:
        self.asked.append(prompt)
        try:
            await self.may_answer.wait()
        except asyncio.CancelledError:
            self.taken_back.append(prompt)
            raise
        return prompt.upper()


class Client:
    """A request as far as `PromptTurns` sees it."""

    def __init__(self) -> None:
        self.has_left = asyncio.Event()

    async def receive(self) -> dict[str, str]:
        await self.has_left.wait()
        return {"type": "http.disconnect"}


async def until(condition: Any) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


def start(turns: PromptTurns, prompt: str, tenant: str, client: Any = None) -> asyncio.Task[str]:
    work: Coroutine[Any, Any, str] = turns.enhance(client or Client(), prompt, tenant)
    return asyncio.ensure_future(work)


def test_the_questions_of_one_tenant_wait_for_its_own_alone() -> None:
    async def check() -> None:
        agent = SlowAgent()
        turns = PromptTurns(agent, num_at_once=2)
        anns = [start(turns, f"ann {number}", "ann") for number in range(5)]
        await until(lambda: len(agent.asked) == 2)
        bobs = start(turns, "bob", "bob")
        await until(lambda: "bob" in agent.asked)
        assert agent.asked == ["ann 0", "ann 1", "bob"], "ann has two questions at a time"
        agent.may_answer.set()
        assert await bobs == "BOB"
        assert await asyncio.gather(*anns) == [f"ANN {number}" for number in range(5)]

    asyncio.run(check())


def test_a_client_that_leaves_takes_its_question_back_and_gives_its_turn_away() -> None:
    async def check() -> None:
        agent, client = SlowAgent(), Client()
        turns = PromptTurns(agent, num_at_once=1)
        first = start(turns, "first", "ann", client)
        second = start(turns, "second", "ann")
        await until(lambda: agent.asked)
        client.has_left.set()
        with pytest.raises(Cancelled, match="has disconnected"):
            await first
        assert agent.taken_back == ["first"]
        await until(lambda: agent.asked == ["first", "second"])
        agent.may_answer.set()
        assert await second == "SECOND"

    asyncio.run(check())


def test_an_error_of_the_endpoint_is_passed_on_and_gives_the_turn_away() -> None:
    class Failing(SlowAgent):
        async def enhance(self, prompt: str) -> str:
            raise EndpointFailed("no answer")

    async def check() -> None:
        turns = PromptTurns(Failing(), num_at_once=1)
        for _ in range(2):
            with pytest.raises(EndpointFailed, match="no answer"):
                await start(turns, "a prompt", "ann")

    asyncio.run(check())


def test_a_video_is_created_while_more_prompts_are_rewritten_than_there_are_threads(tmp_path: Path) -> None:
    with chat_endpoint() as endpoint:
        endpoint.answers = [SILENCE]
        settings = {"kind": "openai", "model": "tiny", "base_url": endpoint.base_url, "timeout_s": 60.0}
        changes = [f"serving.prompts.{name}={value}" for name, value in {**settings, "max_retries": 0}.items()]
        with instant_server(tmp_path, *changes) as served, ThreadPoolExecutor(61) as threads:
            body = {"prompt": "a red circle", "enhance": True}
            waiting = [threads.submit(served.http.post, "/v1/images/generations", json=body) for _ in range(60)]
            try:
                deadline = time.monotonic() + 60
                while len(endpoint.asked) < NUM_SHARED_THREADS:
                    assert time.monotonic() < deadline, len(endpoint.asked)
                    time.sleep(0.01)
                video = threads.submit(served.video, enhance=False)
                assert video.result(20)["status"] == "completed"
                assert not any(each.done() for each in waiting)
            finally:
                endpoint.ended.set()
