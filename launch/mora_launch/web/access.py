"""Access control: checks the host that a request names, the page that sent it, and its user or token.

There are no cookies. A browser sends a host's cookies to all its ports, so on a shared machine the server of another
user would receive them. The page keeps its token in storage that belongs to its origin, which includes the port.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs

from mora_launch.web.asgi import Scope, header_values
from mora_launch.web.connection import PEER_UID
from mora_launch.web.listening import is_loopback, names_of
from mora_launch.web.token import BARE, token_of_run

OWN_USER = "user"  # tenant of requests without a token
TENANT = "mora.tenant"  # key in a request's scope: on whose behalf it comes; None without a right to ask

_AUTHORITY = re.compile(r"(?P<name>[a-z0-9_.-]{1,253}|\[[0-9a-f:.]{2,45}\])(:(?P<port>[0-9]{1,5}))?", re.IGNORECASE)
_ORIGIN = re.compile(r"(?P<scheme>https?)://(?P<authority>[^/?#@]+)", re.IGNORECASE)
_DEFAULT_PORTS = {"http": "80", "https": "443"}


@dataclass(frozen=True)
class Refusal:
    """The reason for refusing a request.

    Attributes:
        field: what the text is about; None for the server itself.
        retry_after_s: when the client may ask again; None if that would not help.
        code: for programs, from a closed set; None if the status says it all.
    """

    status: int
    field: str | None
    text: str
    retry_after_s: int | None = None
    code: str | None = None


@dataclass(frozen=True)
class Access:
    """The access rules of one server.

    Attributes:
        tokens: by name; requests must carry one of them.
        uid: id of the user who needs no token on this machine; None if every user needs it.
        hosts: allowed names in the Host header; None allows any. This stops a site whose name resolves to this machine
            (DNS rebinding) from acting as the user who visits it.
        has_link: whether the server prints a link with the token; the tokens of the user's own file are not printed.
    """

    tokens: Mapping[str, str]
    uid: int | None
    hosts: Collection[str] | None
    has_link: bool = True

    @classmethod
    def at(cls, host: str, tokens: Mapping[str, str] | None, run: Path) -> Access:
        """Return the rules for a server of this user at `host`.

        Args:
            tokens: from the user's file, of which every client then needs one; None makes one for the run, which this
                user does not need on this machine.
        """
        if tokens is not None:
            return cls(tokens, None, None, has_link=False)  # every request carries a token, so a proxy may use any name
        return cls({BARE: token_of_run(run)}, os.getuid() if is_loopback(host) else None, names_of(host))

    def wrong_sender(self, scope: Scope, *, is_page: bool) -> Refusal | None:
        """Return a refusal if the request names another host, or a page of another site or port sent it.

        Args:
            is_page: links on any site may open the address, because it contains no data.
        """
        hosts = header_values(scope, b"host")
        own = _AUTHORITY.fullmatch(hosts[0]) if len(hosts) == 1 else None
        if own is None:
            return Refusal(400, "host", "expected one Host header with a name or address and an optional port")
        if self.hosts is not None and own["name"].lower().strip("[]") not in self.hosts:
            names = ", ".join(sorted(self.hosts))
            text = f"expected one of {names}, got {own['name'][:60]}; use --token-file for a server behind a proxy"
            return Refusal(403, "host", text)
        origins = header_values(scope, b"origin")
        if len(origins) > 1 or any(not _is_same(origin, own) for origin in origins):
            text = f"expected the server's own pages, at {hosts[0][:80]}, got {origins[0][:80]}; a proxy must keep Host"
            return Refusal(403, "origin", text)
        if self._is_foreign_fetch(scope, is_page=is_page):
            return Refusal(403, "origin", "a page of another site or port sent this request")
        return None

    @staticmethod
    def _is_foreign_fetch(scope: Scope, *, is_page: bool) -> bool:
        """Return whether Sec-Fetch-Site names another site. It covers requests without Origin, such as pictures."""
        sites = header_values(scope, b"sec-fetch-site")
        if all(site in ("same-origin", "none") for site in sites):
            return False
        return not (is_page and scope["method"] == "GET" and header_values(scope, b"sec-fetch-mode") == ["navigate"])

    @property
    def token(self) -> str:
        """The token of the link that the server prints."""
        return next(iter(self.tokens.values()))

    @property
    def unauthorized(self) -> Refusal:
        """The refusal of a request without a right to ask, which says where its sender finds a token."""
        printed = "the server printed a link with the token when it started"
        where = printed if self.has_link else "ask the person who runs the server for a token"
        return Refusal(401, "authorization", f"expected `Authorization: Bearer TOKEN`; {where}", code="unauthorized")

    @property
    def tenants(self) -> list[str]:
        """The names of the user's own tokens; empty if only one token exists."""
        return list(self.tokens) if len(self.tokens) > 1 else []

    def tenant_of(self, scope: Scope, *, is_page: bool) -> str | None:
        """Return on whose behalf the request comes: the name of its token, or `OWN_USER`; None without a right to ask.

        Args:
            is_page: the token may also be in the query, as in the link that the server prints.
        """
        if self.uid is not None and scope.get("state", {}).get(PEER_UID) == self.uid:
            return OWN_USER
        given = [_bearer(value) for value in header_values(scope, b"authorization")]
        if is_page and not given:
            given = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("token", [])
        if len(given) != 1:
            return None
        # all are compared, so the time tells nothing about the position of the right one
        found = [
            name for name, token in self.tokens.items() if secrets.compare_digest(given[0].encode(), token.encode())
        ]
        return found[0] if found else None


def _bearer(value: str) -> str:
    scheme, _, token = value.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _is_same(origin: str, own: re.Match[str]) -> bool:
    """Return whether an Origin has the host and port that the request was sent to."""
    parts = _ORIGIN.fullmatch(origin)
    theirs = _AUTHORITY.fullmatch(parts["authority"]) if parts else None
    if parts is None or theirs is None or theirs["name"].lower() != own["name"].lower():
        return False
    default = _DEFAULT_PORTS[parts["scheme"].lower()]
    return (theirs["port"] or default) == (own["port"] or default)
