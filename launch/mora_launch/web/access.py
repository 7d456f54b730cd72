"""Who may ask: the host that a request names, the page that sent it, the user or the token behind it.

No cookie is used. A browser sends a host's cookies to every port of it, so on a shared machine another user's server
would be given them. The page keeps its token in storage that belongs to its origin, port included.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs

from mora_launch.web.asgi import Scope, header_values
from mora_launch.web.connection import PEER_UID
from mora_launch.web.listening import is_loopback, names_of
from mora_launch.web.token import token_of_run

_AUTHORITY = re.compile(r"(?P<name>[a-z0-9_.-]{1,253}|\[[0-9a-f:.]{2,45}\])(:(?P<port>[0-9]{1,5}))?", re.IGNORECASE)
_ORIGIN = re.compile(r"(?P<scheme>https?)://(?P<authority>[^/?#@]+)", re.IGNORECASE)
_DEFAULT_PORTS = {"http": "80", "https": "443"}


@dataclass(frozen=True)
class Refusal:
    """Why a request is not answered."""

    status: int
    field: str
    text: str


@dataclass(frozen=True)
class Access:
    """Who may ask one server.

    Attributes:
        token: that requests must bear.
        uid: of the user who needs no token on this machine; None where all do.
        hosts: names that the Host header may have; None allows any. It keeps sites whose name points at this machine
            (DNS rebinding) from acting as the user who visits them.
    """

    token: str
    uid: int | None
    hosts: Collection[str] | None

    @classmethod
    def at(cls, host: str, token: str | None, run: Path) -> Access:
        """Who may ask a server of this user's at `host`.

        Args:
            token: of the user's own file, which everybody needs then; None makes one for the run, which this user
                does not need on this machine.
        """
        if token is not None:
            return cls(token, None, None)  # every request proves itself, so a proxy may use any name
        return cls(token_of_run(run), os.getuid() if is_loopback(host) else None, names_of(host))

    def wrong_sender(self, scope: Scope, *, is_page: bool) -> Refusal | None:
        """Whether the request names another host than this one, or was sent by a page of another site or port.

        Args:
            is_page: the address may be opened by a link on any site; it holds no data.
        """
        hosts = header_values(scope, b"host")
        own = _AUTHORITY.fullmatch(hosts[0]) if len(hosts) == 1 else None
        if own is None:
            return Refusal(400, "host", "expected one Host header with a name or address, and perhaps a port")
        if self.hosts is not None and own["name"].lower().strip("[]") not in self.hosts:
            names = ", ".join(sorted(self.hosts))
            text = f"expected one of {names}, got {own['name'][:60]}; behind a proxy start the server with --token-file"
            return Refusal(403, "host", text)
        origins = header_values(scope, b"origin")
        if len(origins) > 1 or any(not _is_same(origin, own) for origin in origins):
            text = (
                f"expected the server's own pages, at {hosts[0][:80]}, got {origins[0][:80]}; a proxy has to keep Host"
            )
            return Refusal(403, "origin", text)
        if self._is_foreign_fetch(scope, is_page=is_page):
            return Refusal(403, "origin", "a page of another site or port sent this request")
        return None

    @staticmethod
    def _is_foreign_fetch(scope: Scope, *, is_page: bool) -> bool:
        """What browsers say of requests that carry no Origin, such as pictures and forms of other sites."""
        sites = header_values(scope, b"sec-fetch-site")
        if all(site in ("same-origin", "none") for site in sites):
            return False
        return not (is_page and scope["method"] == "GET" and header_values(scope, b"sec-fetch-mode") == ["navigate"])

    def is_allowed(self, scope: Scope, *, is_page: bool) -> bool:
        """Whether the request comes from this server's own user, or bears its token.

        Args:
            is_page: the token may be in the address, where the link that the server prints has it.
        """
        if self.uid is not None and scope.get("state", {}).get(PEER_UID) == self.uid:
            return True
        given = [_bearer(value) for value in header_values(scope, b"authorization")]
        if is_page and not given:
            given = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("token", [])
        return len(given) == 1 and secrets.compare_digest(given[0].encode(), self.token.encode())


def _bearer(value: str) -> str:
    scheme, _, token = value.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _is_same(origin: str, own: re.Match[str]) -> bool:
    """Whether an Origin is the host and port that the request was sent to."""
    parts = _ORIGIN.fullmatch(origin)
    theirs = _AUTHORITY.fullmatch(parts["authority"]) if parts else None
    if parts is None or theirs is None or theirs["name"].lower() != own["name"].lower():
        return False
    default = _DEFAULT_PORTS[parts["scheme"].lower()]
    return (theirs["port"] or default) == (own["port"] or default)
