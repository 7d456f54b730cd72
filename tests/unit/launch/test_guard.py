"""What every request passes before it is read: token, host, length."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from mora_launch.web.guard import Guard

TOKEN = "a-token-of-some-length"


async def says_what_came(scope: Any, receive: Any, send: Any) -> None:
    nbytes, more = 0, True
    while more:
        message = await receive()
        nbytes, more = nbytes + len(message.get("body", b"")), message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(nbytes).encode()})


def ask(path: str = "/v1/models", token: str | None = TOKEN, hosts: Any = None, **options: Any) -> httpx.Response:
    async def one() -> httpx.Response:
        guard: Any = Guard(says_what_came, token=token, hosts=hosts, max_body_nbytes=100)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(guard), base_url="http://here") as client:
            return await client.request(options.pop("method", "POST"), path, **options)

    return asyncio.run(one())


async def pieces() -> AsyncIterator[bytes]:
    for _ in range(20):
        yield b"0123456789"


def test_without_the_token_nothing_is_answered_but_health() -> None:
    assert ask().status_code == 401
    assert ask(headers={"authorization": "Bearer wrong"}).status_code == 401
    assert ask(headers={"authorization": f"Bearer {TOKEN}"}).status_code == 200
    assert ask("/healthz").status_code == 200


def test_a_page_opened_with_the_token_goes_on_with_a_cookie() -> None:
    opened = ask(f"/page/?token={TOKEN}", method="GET")
    assert opened.status_code == 200
    cookie = opened.headers["set-cookie"]
    assert "HttpOnly; SameSite=Strict" in cookie
    assert ask("/page/", headers={"cookie": cookie.partition(";")[0]}).status_code == 200
    assert "set-cookie" not in ask("/page/?token=wrong", method="GET").headers


@pytest.mark.parametrize("headers", [{"host": "evil.example"}, {"origin": "http://evil.example"}, {"host": ""}])
def test_another_host_or_origin_is_refused(headers: dict[str, str]) -> None:
    assert ask(token=None, hosts=frozenset({"here"}), headers=headers).status_code == 403
    assert ask(token=None, hosts=frozenset({"here"})).status_code == 200


def test_a_body_over_the_limit_is_refused_told_or_not() -> None:
    assert ask(token=None, content=b"x" * 100).text == "100"
    for content in (b"x" * 101, pieces()):
        answer = ask(token=None, content=content)
        assert answer.status_code == 413
        assert "body: expected at most 100 bytes" in answer.json()["error"]["message"]
