"""Odd requests, made from `/openapi.json` and from random heads. No answer may be an internal error.

`python tests/hostile/http/http_fuzz.py URL --minutes 10` asks a running server for that long; the test sends 2,000.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import socket
import sys
import time
from collections import Counter
from urllib.parse import urlsplit

import schemathesis
from hypothesis import HealthCheck, Phase, Verbosity, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode

TIMEOUT_S = 60.0
_PATHS = (
    "/", "/page", "/page/", "/page/serve.js", "/page/../x", "/v1/tasks", "/v1/videos", "/v1/models/\u00e9", "/healthz",
    "/readyz", "/metrics", "/openapi.json", "//", "*", "http://evil.example/v1/videos", "/%", "/%ff", "/?token=x",
    "/v1/videos/" + "x" * 3000, "/page?job=%3Cscript%3E", "/v1/videos?limit=1&limit=2", "/v1/images/edits/", "/..;/",
)  # fmt: skip
_METHODS = ("GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "get", "M\u00fcll")
_HEADERS = (
    "Host: {host}", "Host: [", "Host: evil.example", "Origin: http://[", "Origin: null", "Origin: {url}",
    "Content-Type: application/json", "Content-Type: multipart/form-data; boundary=x", "Content-Type: ;;;=",
    "Content-Length: 5", "Content-Length: -5", "Content-Length: 99999999999999999999", "Transfer-Encoding: chunked",
    "Transfer-Encoding: gzip", "Authorization: Bearer", "Authorization: Bearer \u00e9", "Cookie: a=b; $x", "Expect: x",
    "Range: bytes=9-1", "Range: bytes=0-0,1-1,2-2", "If-None-Match: *", "Upgrade: websocket", "Connection: upgrade",
    "Sec-Fetch-Site: cross-site", "X: " + "y" * 5000, "Accept-Encoding: gzip;q=9", "Content-Encoding: gzip",
)  # fmt: skip
_BODIES = (
    b"",
    b"{}",
    b"[]",
    b"\xff" * 40,
    b"0\r\n\r\n",
    b"5\r\nhello\r\n0\r\n\r\n",
    b"--x\r\n\r\n--x--",
    b"null",
    b"{" * 500,
)


class Outcome:
    """Results of the requests."""

    def __init__(self) -> None:
        self.statuses: Counter[str] = Counter()
        self.faults: list[str] = []

    def note(self, what: str, status: int | str) -> None:
        """Count the answer to one request."""
        self.statuses[str(status)] += 1
        if isinstance(status, int) and status >= 500 and status != 503:
            self.faults.append(f"{status} for {what[:500]}")

    @property
    def num_requests(self) -> int:
        return sum(self.statuses.values())


def fuzz_operations(url: str, num_each: int, outcome: Outcome, *, derandomize: bool = True) -> None:
    """Call every operation that the server describes `num_each` times, with valid and invalid bodies."""
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    for operation in schema.get_all_operations():
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            with contextlib.suppress(Unsatisfiable):  # nothing can be wrong with what takes no arguments
                _fuzz_operation(operation.ok(), mode, num_each // 2, outcome, derandomize=derandomize)


def _fuzz_operation(
    operation: schemathesis.APIOperation, mode: GenerationMode, number: int, outcome: Outcome, *,
    derandomize: bool,
) -> None:  # fmt: skip
    @settings(
        max_examples=number, deadline=None, derandomize=derandomize, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck), verbosity=Verbosity.quiet,
    )  # fmt: skip
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: schemathesis.Case) -> None:
        if mode is GenerationMode.POSITIVE and isinstance(case.body, dict):
            for name in ("model", "size", "codec", "lora"):  # texts, of which a random one is never right
                case.body.pop(name, None)
        answer = case.call(timeout=TIMEOUT_S)
        outcome.note(f"{case.method} {case.path} {case.query} {case.body!r}", answer.status_code)

    ask()


def fuzz_heads(url: str, number: int, outcome: Outcome, source: random.Random) -> None:
    """Send random heads, and check that each is answered or closed in time."""
    parts = urlsplit(url)
    host = parts.netloc
    for _ in range(number):
        lines = [f"{source.choice(_METHODS)} {source.choice(_PATHS)} HTTP/1.{source.choice('011')}"]
        lines += source.sample(_HEADERS, source.randrange(5))
        lines += [] if source.random() < 0.2 else ["Host: {host}"]
        text = "\r\n".join([*lines, "Connection: close", "", ""]).replace("{host}", host).replace("{url}", url)
        with socket.create_connection((parts.hostname, parts.port), timeout=TIMEOUT_S) as raw:
            outcome.note(text, _answer(raw, text.encode() + source.choice(_BODIES)))


def _answer(raw: socket.socket, data: bytes) -> int | str:
    try:
        raw.sendall(data)
        raw.shutdown(socket.SHUT_WR)
        first = raw.recv(4096)
        while raw.recv(65536):
            pass
    except ConnectionError:
        return "reset"
    status = first.split(b" ", 2)[1] if first.count(b" ") else b""
    return int(status) if status.isdigit() else "closed"


def main() -> None:
    """Ask for some minutes; exit code 1 if an answer was an internal error."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--minutes", type=float, default=10.0)
    given_arguments = parser.parse_args()
    outcome, ends = Outcome(), time.monotonic() + 60 * given_arguments.minutes
    seed = 0
    while time.monotonic() < ends:
        fuzz_heads(given_arguments.url, 300, outcome, random.Random(seed))
        fuzz_operations(given_arguments.url, 60, outcome, derandomize=False)
        seed += 1
        print(f"{outcome.num_requests} requests: {dict(sorted(outcome.statuses.items()))}", flush=True)
    print("\n".join(outcome.faults[:20]))
    sys.exit(1 if outcome.faults else 0)


if __name__ == "__main__":
    main()
