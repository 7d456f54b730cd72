"""What every request passes first: who may ask, from where, and how much may be sent. Plain ASGI."""

from __future__ import annotations

import json
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import parse_qs, urlsplit

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
_OPEN = ("/healthz", "/readyz")
_COOKIE = "mora_token"


class TooLarge(Exception):
    """The body has more bytes than allowed."""


class Guard:
    """Checks token, host, origin and length before anything is read.

    Args:
        token: that requests must bear; None asks for none (loopback alone).
        hosts: names that the Host header may have; None allows any. It keeps pages of other sites, which a browser on
            this machine shows, from reaching a server that asks for no token.
        max_body_nbytes: of one request.
    """

    def __init__(self, app: App, *, token: str | None, hosts: frozenset[str] | None, max_body_nbytes: int) -> None:
        self._app = app
        self._token = token
        self._hosts = hosts
        self._max_body_nbytes = max_body_nbytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "websocket" and not self._is_allowed(scope):
                await send({"type": "websocket.close", "code": 4401})
                return
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        if self._hosts is not None and not self._is_ours(headers):
            await _refuse(send, 403, "host", "this server answers to its own address only")
            return
        if scope["path"] not in _OPEN and not self._is_allowed(scope):
            text = "expected `Authorization: Bearer TOKEN`; the token stands in the server's run directory"
            await _refuse(send, 401, "authorization", text, ((b"www-authenticate", b"Bearer"),))
            return
        length = headers.get("content-length", "0")
        if not length.isdigit() or int(length) > self._max_body_nbytes:
            await _refuse(send, 413, "body", f"expected at most {self._max_body_nbytes} bytes, got {length[:20]}")
            return
        await self._with_bounded_body(scope, receive, send)

    async def _with_bounded_body(self, scope: Scope, receive: Receive, send: Send) -> None:
        seen = 0
        started = refused = False

        async def bounded() -> Message:
            nonlocal seen, refused
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self._max_body_nbytes and not refused:
                refused = True
                if not started:
                    await _refuse(send, 413, "body", f"expected at most {self._max_body_nbytes} bytes, got more")
            if refused:
                raise TooLarge
            return message

        async def watched(message: Message) -> None:
            nonlocal started
            if refused:
                return  # the application's word about a body that it could not read; the answer has left
            started = True
            if message["type"] == "http.response.start" and self._token and b"token=" in scope.get("query_string", b""):
                cookie = f"{_COOKIE}={self._token}; HttpOnly; SameSite=Strict; Path=/"  # so that a page can go on
                message = {**message, "headers": [*message["headers"], (b"set-cookie", cookie.encode())]}
            await send(message)

        try:
            await self._app(scope, bounded, watched)
        except Exception:
            if not refused:  # TooLarge, or what frameworks have made of it on its way
                raise

    def _is_ours(self, headers: dict[str, str]) -> bool:
        assert self._hosts is not None
        names = [urlsplit(f"//{headers.get('host', '')}").hostname or ""]
        if "origin" in headers:
            names.append(urlsplit(headers["origin"]).hostname or "")
        return all(name in self._hosts for name in names)

    def _is_allowed(self, scope: Scope) -> bool:
        if self._token is None:
            return True
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        cookie = SimpleCookie(headers.get("cookie", "")).get(_COOKIE)
        query = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("token", [""])
        given = [bearer.strip() if scheme.lower() == "bearer" else "", cookie.value if cookie else "", query[0]]
        return any(secrets.compare_digest(each.encode(), self._token.encode()) for each in given)


async def _refuse(send: Send, status: int, field: str, text: str, extra: tuple[tuple[bytes, bytes], ...] = ()) -> None:
    body = json.dumps(error_body(field, f"{field}: {text}", "invalid_request_error")).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *extra]
    await send({"type": "http.response.start", "status": status, "headers": [*headers, (b"connection", b"close")]})
    await send({"type": "http.response.body", "body": body})


def error_body(field: str | None, text: str, kind: str, code: str | None = None) -> dict[str, Any]:
    """OpenAI's shape of an error."""
    return {"error": {"message": text, "type": kind, "param": field, "code": code}}
