"""While a server loads or drains, work is refused with the time to ask again; all else is answered."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from mora_launch.serving.counters import Counters
from mora_launch.serving.http.counting import Counting
from mora_launch.serving.life.drain import Drain, Gate
from mora_launch.serving.life.health import readiness
from mora_launch.serving.life.late_app import LateApp
from mora_launch.web.access import Access

TOKEN = {"authorization": "Bearer a-token-of-some-length"}
LOADING = {"image.0": True, "video.0": False}


async def one_answer(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"done"})


def client_of(app: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://10.0.0.7:81")


def answers(app: Any, *requests: tuple[str, str], **options: Any) -> list[httpx.Response]:
    async def ask() -> list[httpx.Response]:
        async with client_of(app) as client:
            return [await client.request(method, path, **options) for method, path in requests]

    return asyncio.run(ask())


def test_a_draining_server_refuses_new_work_alone() -> None:
    drain = Drain()
    app = Gate(one_answer, drain)
    requests = [("POST", "/v1/videos"), ("GET", "/v1/videos/x"), ("DELETE", "/v1/videos/x"), ("GET", "/metrics")]
    assert [each.status_code for each in answers(app, *requests)] == [200, 200, 200, 200]
    drain.begin(30.0)
    refused, *others = answers(app, *requests)
    assert [each.status_code for each in others] == [200, 200, 200]
    assert refused.status_code == 503
    assert 1 <= int(refused.headers["retry-after"]) <= 30
    error = refused.json()["error"]
    assert (error["type"], error["code"]) == ("server_error", "server_stopping")
    assert error["message"].startswith("the server is being stopped and takes no new work")
    assert drain.num_requests == 0


def test_the_time_to_ask_again_is_at_least_a_second() -> None:
    drain = Drain()
    drain.begin(0.0)
    (refused,) = answers(Gate(one_answer, drain), ("POST", "/v1/images/generations"))
    assert refused.headers["retry-after"] == "1"


def test_a_server_that_is_not_ready_says_when_to_probe_again() -> None:
    ready = readiness({}, "ready", LOADING)
    assert (ready.status_code, "retry-after" in ready.headers) == (200, False)
    assert readiness({}, "waiting for servers", LOADING).headers["retry-after"] == "5"
    stopping = readiness({}, "stopping", LOADING, 17)
    assert (stopping.status_code, stopping.headers["retry-after"]) == (503, "17")


def test_a_refusal_of_a_draining_server_is_counted_as_refused_with_its_code() -> None:
    drain, counters = Drain(), Counters()
    drain.begin(30.0)
    answers(Counting(Gate(one_answer, drain), counters, lambda _: None), ("POST", "/v1/images/generations"))
    labels = {"kind": "picture", "finished_reason": "refused", "code": "server_stopping"}
    assert counters.registry.get_sample_value("mora_request_success_total", labels) == 1


@pytest.mark.parametrize("fails", [False, True])
def test_a_request_for_work_counts_until_its_answer_ends(fails: bool) -> None:
    drain = Drain()
    seen: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(drain.num_requests)
        if fails:
            raise RuntimeError
        await one_answer(scope, receive, send)

    with contextlib.suppress(RuntimeError):
        answers(Gate(app, drain), ("POST", "/v1/videos"))
    with contextlib.suppress(RuntimeError):
        answers(Gate(app, drain), ("GET", "/v1/videos"))
    assert (seen, drain.num_requests) == ([1, 0], 0)


def late_app() -> LateApp:
    late = LateApp(Access({"token": TOKEN["authorization"].split()[1]}, None, {"localhost"}))
    late.servers = lambda: LOADING
    return late


def test_before_its_models_are_loaded_a_server_answers_probes_alone() -> None:
    health, ready, models, video = answers(
        late_app(), ("GET", "/healthz"), ("GET", "/readyz"), ("GET", "/v1/models"), ("POST", "/v1/videos")
    )
    assert health.status_code == 200
    assert (ready.status_code, ready.json()) == (503, {"ready": False, "status": "loading"})
    assert ready.headers["retry-after"] == "5"
    assert {models.status_code, video.status_code} == {403}, "the Host header is of another machine"
    local = {**TOKEN, "host": "localhost:81"}
    ready, models, video = answers(
        late_app(), ("GET", "/readyz"), ("GET", "/v1/models"), ("POST", "/v1/videos"), headers=local
    )
    assert ready.json()["servers"] == LOADING
    for refused in (models, video):
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
        error = refused.json()["error"]
        assert (error["message"], error["code"]) == ("models are loading; ask again later", "server_loading")
    (unknown,) = answers(late_app(), ("GET", "/v1/models"), headers={"host": "localhost:81"})
    assert unknown.status_code == 401


def test_the_application_takes_over_and_lives_until_the_server_ends() -> None:
    events: list[str] = []

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        events.append("begun")
        yield
        events.append("ended")

    app = FastAPI(lifespan=lifespan)
    app.add_api_route("/v1/models", lambda: {"made": True})

    async def serve() -> None:
        late = late_app()
        messages: asyncio.Queue[Any] = asyncio.Queue()
        sent: asyncio.Queue[Any] = asyncio.Queue()
        life = asyncio.create_task(late({"type": "lifespan"}, messages.get, sent.put))
        await messages.put({"type": "lifespan.startup"})
        assert (await sent.get())["type"] == "lifespan.startup.complete"
        await asyncio.to_thread(late.put, app)
        assert events == ["begun"]
        async with client_of(late) as client:
            assert (await client.get("/v1/models")).json() == {"made": True}
        await messages.put({"type": "lifespan.shutdown"})
        assert (await sent.get())["type"] == "lifespan.shutdown.complete"
        await life

    asyncio.run(serve())
    assert events == ["begun", "ended"]
