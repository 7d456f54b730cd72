"""The checks that every request passes first: access, origin, and the size of its body. Plain ASGI."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection
from typing import Any

import h11
from mora_runtime.files.shown_text import shown_line

from mora_launch.limits import MAX_LEFT_OVER_NBYTES, MAX_REFUSAL_LENGTH
from mora_launch.web.access import TENANT, Access, Refusal
from mora_launch.web.asgi import App, Message, Receive, Scope, Send, header_values
from mora_launch.web.body import Body, BodyRoom

HEALTH = frozenset({"/healthz", "/readyz"})  # they tell strangers their status alone
_BODY_AGAIN_S = 1  # then other bodies may have left memory
_WITHOUT_BODY = frozenset({"GET", "HEAD", "DELETE", "OPTIONS"})
_REFUSED_METHODS = frozenset({"TRACE", "CONNECT"})
# Pages of other sites can neither embed nor read answers of this server, and its addresses do not leak as referrers.
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"x-frame-options", b"DENY"),
    (b"cache-control", b"no-store"),
)


class Guard:
    """Checks host, origin, user or token, and the body's length and speed before anything is read.

    Args:
        pages: addresses of pages, which contain no data. Without a token they are sent with status 401 and ask for it.
        assets: addresses of the pages' scripts and styles, which need no token.
        max_body_nbytes: limit of one request's body.
    """

    def __init__(
        self,
        app: App,
        *,
        access: Access,
        max_body_nbytes: int,
        pages: Collection[str] = (),
        assets: Collection[str] = (),
    ) -> None:
        self._app = app
        self._access = access
        self._pages = frozenset(pages)
        self._open = HEALTH | frozenset(assets)
        self._room = BodyRoom(max_body_nbytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        send = _quiet(send)
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})  # no application here uses websockets
            return
        is_page = scope["path"] in self._pages
        wrong_sender = self._access.wrong_sender(scope, is_page=is_page)
        scope[TENANT] = None if wrong_sender is not None else self._access.tenant_of(scope, is_page=is_page)
        is_allowed = scope[TENANT] is not None
        refusal = self._wrong_request(scope)
        if scope["path"] not in HEALTH:  # a probe names the address of a container, and has no token
            refusal = wrong_sender or refusal
        if refusal is None and not (is_allowed or is_page or scope["path"] in self._open):
            refusal = self._access.unauthorized
        if refusal is not None:
            await refuse(scope, send, refusal)
            return
        await self._serve(scope, receive, send, 200 if is_allowed or not is_page else 401)

    def _wrong_request(self, scope: Scope) -> Refusal | None:
        if scope["method"] in _REFUSED_METHODS:
            return Refusal(405, "method", f"{scope['method']} is not allowed")
        lengths = header_values(scope, b"content-length")
        encodings = header_values(scope, b"transfer-encoding")
        if lengths and encodings:
            return Refusal(400, "body", "expected Content-Length or Transfer-Encoding, got both")
        if scope["method"] in _WITHOUT_BODY and (encodings or any(length != "0" for length in lengths)):
            return Refusal(400, "body", f"{scope['method']} takes no body")
        most = self._room.max_body_nbytes
        if any(not length.isdecimal() or len(length) > 15 or int(length) > most for length in lengths):
            return Refusal(413, "body", f"expected at most {most} bytes, got {lengths[0][:20]}")
        return None

    async def _serve(self, scope: Scope, receive: Receive, send: Send, status: int) -> None:
        body = Body(receive, self._room)
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            if body.refused is not None:
                return  # drop the application's own answer to the refused body; the end of `_serve` answers
            started = True
            if message["type"] == "http.response.start":
                known = {name.lower() for name, _ in message.get("headers", [])}
                extra = [(name, value) for name, value in _HEADERS if name not in known]
                shown = status if message["status"] == 200 else message["status"]
                message = {**message, "status": shown, "headers": [*message.get("headers", []), *extra]}
            await send(message)

        try:
            await self._app(scope, body.receive, watched)
        except Exception:
            if body.refused is None:  # otherwise it is `BodyRefused`, possibly wrapped by the framework
                raise
        finally:
            body.close()
        if body.refused is not None and not started:
            status, text = body.refused
            again_s = _BODY_AGAIN_S if status == 429 else None
            await _send_refusal(send, Refusal(status, "body", text, again_s), closes=True)


def _quiet(send: Send) -> Send:
    """Drop answers on a connection that is already closed: the rest of the request was not HTTP, and the server has
    answered that itself."""

    async def send_if_open(message: Message) -> None:
        with contextlib.suppress(h11.LocalProtocolError):
            await send(message)

    return send_if_open


def _has_short_body(scope: Scope) -> bool:
    """Return whether what is left of the request can be read and dropped.

    The connection then stays open. Closing it while the body is on its way would reset it, and a client that sends
    before it reads would see that instead of the answer.
    """
    lengths = header_values(scope, b"content-length")
    if header_values(scope, b"transfer-encoding") or len(lengths) > 1:
        return False
    return not lengths or (lengths[0].isdecimal() and len(lengths[0]) <= 15 and int(lengths[0]) <= MAX_LEFT_OVER_NBYTES)


async def refuse(scope: Scope, send: Send, refusal: Refusal) -> None:
    """Answer a request whose body has not been read."""
    await _send_refusal(send, refusal, closes=not _has_short_body(scope))


async def _send_refusal(send: Send, refusal: Refusal, *, closes: bool) -> None:
    kind = "invalid_request_error" if refusal.status < 500 else "server_error"
    text = refusal.text if refusal.field is None else f"{refusal.field}: {refusal.text}"
    body = json.dumps(error_body(refusal.field, text, kind, refusal.code)).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *_HEADERS]
    if refusal.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if refusal.retry_after_s is not None:
        headers.append((b"retry-after", str(refusal.retry_after_s).encode()))
    if closes:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def error_body(field: str | None, text: str, kind: str, code: str | None = None) -> dict[str, Any]:
    """Return an error in OpenAI's format."""
    param = None if field is None else shown_line(field)
    return {"error": {"message": shown_line(text, MAX_REFUSAL_LENGTH), "type": kind, "param": param, "code": code}}
