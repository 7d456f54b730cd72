"""The checks of every request before it is read: user or token, host, origin, length, speed."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from mora_launch.limits import SMALL_BODY_NBYTES
from mora_launch.web.access import Access
from mora_launch.web.body import Body, BodyRefused, BodyRoom
from mora_launch.web.connection import PEER_UID
from mora_launch.web.guard import Guard

TOKEN = "a-token-of-some-length"
ME, OTHER = 1000, 1042


async def says_what_came(scope: Any, receive: Any, send: Any) -> None:
    nbytes, more = 0, True
    while more:
        message = await receive()
        nbytes, more = nbytes + len(message.get("body", b"")), message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(nbytes).encode()})


def ask(
    path: str = "/v1/models",
    *,
    peer: int | None = OTHER,
    uid: int | None = None,
    hosts: Any = None,
    has_link: bool = True,
    **options: Any,
) -> httpx.Response:
    """Send one request of a peer to a guarded application of user `uid`."""
    access = Access({"token": TOKEN}, uid, hosts, has_link)
    guard: Any = Guard(says_what_came, access=access, max_body_nbytes=100, pages=["/page"], assets=["/page/a.js"])

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await guard({**scope, "state": {PEER_UID: peer}}, receive, send)

    async def one() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here:81") as client:
            return await client.request(options.pop("method", "POST"), path, **options)

    return asyncio.run(one())


def bearing(token: str = TOKEN) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


async def pieces() -> AsyncIterator[bytes]:
    for _ in range(20):
        yield b"0123456789"


def test_without_the_token_nothing_is_answered_but_health() -> None:
    assert ask().status_code == 401
    assert ask(headers=bearing("wrong")).status_code == 401
    assert ask(headers=bearing()).status_code == 200
    assert ask("/healthz").status_code == 200


@pytest.mark.parametrize(
    ("has_link", "where"),
    [(True, "the server printed a link with the token"), (False, "ask the person who runs the server for a token")],
)
def test_a_refusal_without_a_token_says_where_there_is_one(has_link: bool, where: str) -> None:
    error = ask(has_link=has_link).json()["error"]
    assert error["code"] == "unauthorized"
    assert where in error["message"]


@pytest.mark.parametrize(
    "headers",
    [
        [("authorization", f"Bearer {TOKEN}"), ("authorization", "Bearer wrong")],
        [("authorization", f"Basic {TOKEN}")],
        [("authorization", "Bearer")],
        [("authorization", f"Bearer {TOKEN}é")],
        [("cookie", f"mora_token={TOKEN}")],
    ],
)
def test_a_repeated_or_misplaced_token_is_refused(headers: Any) -> None:
    encoded = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    assert ask(headers=encoded).status_code == 401


def test_the_servers_own_user_needs_no_token_and_no_other_user_passes_for_it() -> None:
    assert ask(peer=ME, uid=ME).status_code == 200
    assert ask(peer=OTHER, uid=ME).status_code == 401
    assert ask(peer=None, uid=ME).status_code == 401, "the kernel did not tell"
    assert ask(peer=0, uid=ME).status_code == 401
    assert ask(peer=ME, uid=None).status_code == 401, "the user has a token of his own, which all need"


def test_the_page_is_opened_by_a_link_with_the_token_and_sets_no_cookie() -> None:
    opened = ask(f"/page?token={TOKEN}", method="GET")
    assert opened.status_code == 200
    assert "set-cookie" not in opened.headers
    assert ask("/page", method="GET").status_code == 401, "it holds no data, and asks for the token"
    assert ask("/page", method="GET").text == "0"
    assert ask(f"/page?token={TOKEN}&token=x", method="GET").status_code == 401
    assert ask("/page/a.js", method="GET").status_code == 200
    assert ask(f"/v1/models?token={TOKEN}", method="GET").status_code == 401, "addresses are kept in histories"


@pytest.mark.parametrize(
    "host", ["evil.example", "here.evil.example", "", "[", "a b", "here:81@evil", "here:99999999", "x" * 300, "[::1"]
)
def test_another_host_is_refused_and_no_host_causes_an_error_of_the_server(host: str) -> None:
    assert ask(peer=ME, uid=ME, hosts=frozenset({"here"}), headers={"host": host}).status_code in (400, 403)


def test_with_the_users_own_token_behind_a_proxy_any_host_is_accepted(tmp_path: Path) -> None:
    tokens = {"token": TOKEN}
    assert Access.at("127.0.0.1", tokens, tmp_path) == Access(tokens, None, None, has_link=False)
    public = {**bearing(), "host": "mora.example.com", "origin": "https://mora.example.com"}
    assert ask(headers=public).status_code == 200
    assert ask(headers={**public, "origin": "https://evil.example"}).status_code == 403
    own = Access.at("127.0.0.1", None, tmp_path)
    assert (own.uid, own.hosts is None) == (os.getuid(), False)
    assert Access.at("0.0.0.0", None, tmp_path).uid is None


def test_two_hosts_are_refused() -> None:
    assert ask(peer=ME, uid=ME, headers=[(b"host", b"here"), (b"host", b"here")]).status_code == 400


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example", "null", "http://here", "http://here:82", "https://here", "http://[", "http://here:81.x",
        "http://user@here:81", "ftp://here:81", "", "here:81", "http://here:81/", "file://",
    ],
)  # fmt: skip
@pytest.mark.parametrize("hosts", [None, frozenset({"here"})])
def test_a_page_of_another_site_or_port_is_refused_with_the_token_too(origin: str, hosts: Any) -> None:
    assert ask(hosts=hosts, headers={**bearing(), "origin": origin}).status_code == 403


def test_pages_of_the_servers_own_origin_are_answered() -> None:
    assert ask(headers={**bearing(), "origin": "http://here:81"}).status_code == 200
    assert ask(headers={**bearing(), "origin": "HTTP://Here:81"}).status_code == 200
    behind_tls = {**bearing(), "host": "here", "origin": "https://here"}
    assert ask(headers=behind_tls).status_code == 200, "a proxy speaks TLS to the browser"


def test_requests_that_other_sites_send_without_an_origin_are_refused() -> None:
    for site in ("cross-site", "same-site", "weird"):
        assert ask(peer=ME, uid=ME, method="GET", headers={"sec-fetch-site": site}).status_code == 403
    link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    assert ask("/page", peer=ME, uid=ME, method="GET", headers=link).status_code == 200, "a link may open the page"
    assert ask("/page", peer=ME, uid=ME, method="POST", headers=link).status_code == 403
    assert ask(peer=ME, uid=ME, method="GET", headers={"sec-fetch-site": "same-origin"}).status_code == 200


def test_answers_cannot_be_framed_embedded_or_cached_by_other_sites() -> None:
    for answer in (ask(headers=bearing()), ask()):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert answer.headers["x-frame-options"] == "DENY"
        assert not [name for name in answer.headers if name.startswith("access-control-")]


def test_a_body_over_the_limit_is_refused_with_or_without_its_length() -> None:
    assert ask(headers=bearing(), content=b"x" * 100).text == "100"
    for content in (b"x" * 101, pieces()):
        answer = ask(headers=bearing(), content=content)
        assert answer.status_code == 413
        assert "body: expected at most 100 bytes" in answer.json()["error"]["message"]
    assert ask(headers={**bearing(), "content-length": "1" * 5000}).status_code == 413


def body_of(room: BodyRoom, sizes: list[int], *, window_s: float = 5.0) -> Body:
    """A body that arrives in pieces of these sizes and then stalls before its end."""
    left = list(sizes)

    async def receive() -> Any:
        if not left:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": b"x" * left.pop(0), "more_body": True}

    return Body(receive, room, window_s=window_s)


def test_a_body_that_stalls_is_refused() -> None:
    async def run() -> None:
        body = body_of(BodyRoom(1 << 30), [10, 10], window_s=0.05)
        await body.receive()
        await body.receive()
        with pytest.raises(BodyRefused, match="bytes a second or the end of the body") as refused:
            await body.receive()
        assert refused.value.status == 408
        with pytest.raises(BodyRefused):
            await body.receive()

    asyncio.run(run())


def test_bodies_share_a_limit_of_memory_and_small_ones_always_pass() -> None:
    async def run() -> None:
        room = BodyRoom(1 << 20)
        room.max_nbytes = 2 << 20
        first, second, third = (body_of(room, [1 << 20]) for _ in range(3))
        await first.receive()
        await second.receive()
        with pytest.raises(BodyRefused) as refused:
            await third.receive()
        assert refused.value.status == 429
        await body_of(room, [SMALL_BODY_NBYTES]).receive()
        first.close()
        await body_of(room, [1 << 20]).receive()
        assert room.nbytes == 2 << 20

    asyncio.run(run())
