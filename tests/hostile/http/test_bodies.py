"""Remote client with a token: it sends large, deep, slow or broken bodies, to take memory and time."""

from __future__ import annotations

import concurrent.futures
import contextlib
import gc
import json
import socket
import time

import httpx
import pytest
from hostile_serving import Honest, Served, until

pytestmark = pytest.mark.timeout(240)
MB = 1 << 20


def post_json(served: Served, body: bytes, path: str = "/v1/videos") -> httpx.Response:
    return served.http.post(path, content=body, headers={"content-type": "application/json"}, timeout=60)


@pytest.mark.parametrize(
    "body",
    [
        b'{"prompt":"x","user":[' + b"[]," * (7 * MB) + b"[]]}",
        b'{"prompt":"x","user":' + b"[" * MB + b"]" * MB + b"}",
        b'{"prompt":"x","user":"' + b"a" * (20 * MB) + b'"}',
        b'{"prompt":"x","user":{' + b",".join(b'"%d":0' % n for n in range(200_000)) + b"}}",
        b'{"prompt":"x","input_reference":"data:' + b"a" * MB + b'","user":[' + b"[]," * MB + b"[]]}",
        b'{"prompt":"x","input_reference":[' + b'"data:a",' * (MB // 2) + b'"x"]}',
    ],
    ids=["many lists", "deep", "long text", "many keys", "behind a data: URL", "many data: URLs"],
)
@pytest.mark.parametrize("path", ["/v1/videos", "/v1/images/generations"])
def test_more_json_than_a_request_needs_is_refused(served: Served, honest: Honest, body: bytes, path: str) -> None:
    answer = post_json(served, body, path)
    assert answer.status_code in (400, 413), answer.text
    assert answer.json()["error"]["param"] in ("body", "input_reference")


@pytest.mark.parametrize(
    "body",
    [
        b'{"prompt":"x","seed":1' + b"0" * 400 + b"}", b'{"prompt":"x","seed":1e400}', b'{"prompt":"x","seed":NaN}',
        b'{"prompt":"x","seed":' + b"9" * 5000 + b"}", b'{"prompt":"x","n":-1e308}', b'{"prompt":"x","fps":Infinity}',
        b'{"prompt":"x","seed":true}', b'{"prompt":"x","seed":[]}', b'{"prompt":"x","seed":"0x10"}', b"[" * 900, b"",
        b'{"prompt":"\\ud800"}', b"\xff\xfe{}", b"null", b'{"prompt":"x","seconds":"1e999"}', b'{"prompt":{"a":1}}',
        b'{"prompt":"x","model":"\\ud800"}', b'{"prompt":"x","size":"\\udfff"}', b'{"prompt":"x","\\ud800":1}',
        b'{"prompt":"x","model":"\xed\xa0\x80"}', b'{"prompt":"x","prompt":"y"}', b'{"prompt":"x","stream":"\\ud800"}',
        b'{"prompt":"x","review":"maybe"}', b'{"prompt":"x","size":"9"}', b'{"prompt":"x","__proto__":{}}',
    ],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/v1/videos", "/v1/images/generations", "/v1/images/edits"])
def test_no_number_or_value_causes_an_error_of_the_server(served: Served, body: bytes, path: str) -> None:
    answer = post_json(served, body, path)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["message"]


@pytest.mark.parametrize("query", ["limit=9" + "9" * 400, "limit=-1", "limit=x", "after=%00", "order=%ff", "limit=1e9"])
def test_no_query_causes_an_error_of_the_server(served: Served, query: str) -> None:
    assert served.http.get(f"/v1/videos?{query}").status_code in (400, 404)


def test_many_long_json_bodies_at_once_do_not_delay_other_clients(served: Served, honest: Honest) -> None:
    bodies = [
        b'{"prompt":"x","user":[' + b"[]," * 340_000 + b"[]]}",
        b'{"prompt":"x","user":{' + b",".join(b'"%d":0' % n for n in range(90_000)) + b"}}",
    ]
    with concurrent.futures.ThreadPoolExecutor(30) as threads:
        answers = list(threads.map(lambda body: post_json(served, body).status_code, bodies * 15))
    assert set(answers) == {400}


def test_character_sets_that_clients_name_are_not_cached(served: Served, honest: Honest) -> None:
    before = served.own_nbytes()
    for number in range(100):
        kind = f"multipart/form-data; boundary=B; charset=x{number}" + "y" * 50_000
        content = (part("nothing") + "--B--\r\n").encode()
        answer = served.http.post("/v1/images/edits", content=content, headers={"content-type": kind})
        assert answer.status_code == 400
    until(lambda: served.own_nbytes() < before + 10 * MB, "nothing is kept of them")


def part(name: str, value: str = "x", extra: str = "") -> str:
    return f'--B\r\nContent-Disposition: form-data; name="{name}"{extra}\r\n\r\n{value}\r\n'


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("multipart/form-data; boundary=B", "".join(part(f"f{n}") for n in range(20_000)) + "--B--\r\n"),
        ("multipart/form-data; boundary=B", part("prompt", "x" * (2 * MB)) + "--B--\r\n"),
        ("multipart/form-data; boundary=B", part("image", "x", '; filename="a"') * 50 + "--B--\r\n"),
        ("multipart/form-data; boundary=B; charset=no-such", part("nothing") + "--B--\r\n"),
        ("multipart/form-data; boundary=B; charset=punycode", part("prompt-", "x" * 500_000 + "-" + "a" * 500_000)),
        ('multipart/form-data; Charset="PunyCode"; boundary=B', part("prompt-", "x" * 500_000 + "-" + "a" * 500_000)),
        ("multipart/form-data; boundary=B; charset=idna", part("nothing", "a." * 400_000)),
        ("multipart/form-data; boundary=B", "--B\r\n" + "X: y\r\n" * 100_000 + "\r\nz\r\n--B--\r\n"),
        ("multipart/form-data; boundary=B", "--B\r\n\r\nx\r\n--B--\r\n"),
        ("multipart/form-data", part("prompt")),
        ("multipart/form-data; boundary=" + "B" * 5000, part("prompt")),
        ("multipart/form-data; boundary=B", "no form"),
        ("application/x-www-form-urlencoded", "&".join(f"a{n}=1" for n in range(100_000))),
        ("application/x-www-form-urlencoded", "prompt=" + "x" * (3 * MB)),
        ("application/x-www-form-urlencoded", "prompt=%ff%fe&" * 10),
        ("text/plain", "prompt=x"),
    ],
)
def test_odd_forms_are_refused(served: Served, honest: Honest, kind: str, body: str) -> None:
    answer = served.http.post("/v1/images/edits", content=body.encode(), headers={"content-type": kind})
    assert answer.status_code in (400, 413, 415), answer.text


def test_a_body_over_the_limit_of_uploads_is_refused_with_or_without_its_length(served: Served, honest: Honest) -> None:
    most = 66 * MB
    with served.connection() as raw:
        raw.sendall(head(served, f"Content-Length: {10**12}"))
        assert b" 413 " in raw.recv(1000)
    with served.connection() as raw:
        raw.sendall(head(served, "Transfer-Encoding: chunked"))
        piece = b"100000\r\n" + b"x" * MB + b"\r\n"
        with contextlib.suppress(ConnectionError):
            for _ in range(most // MB + 2):
                raw.sendall(piece)
        with contextlib.suppress(ConnectionError):
            assert raw.recv(1000).startswith(b"HTTP/1.1 4")


def head(served: Served, *lines: str) -> bytes:
    given = ["POST /v1/videos HTTP/1.1", f"Host: 127.0.0.1:{served.port}", "Content-Type: application/json", *lines]
    return ("\r\n".join(given) + "\r\n\r\n").encode()


def test_half_sent_bodies_are_closed_and_their_memory_is_freed(served: Served, honest: Honest) -> None:
    post_json(served, b'{"prompt":"x","user":"' + b"a" * (20 * MB) + b'"}')  # what reading a long body takes once
    before = served.own_nbytes()
    held: list[socket.socket] = []
    try:
        for _ in range(8):
            raw = served.connection()
            held.append(raw)
            raw.sendall(head(served, f"Content-Length: {60 * MB}"))
            with contextlib.suppress(ConnectionError):  # there is no room for so many
                raw.sendall(b'{"prompt":"' + b"x" * (55 * MB))
        answers = [raw.recv(1000) for raw in held]
        for answer in answers:
            assert answer[:12] in (b"HTTP/1.1 408", b"HTTP/1.1 429", b""), answer
        assert any(answer.startswith(b"HTTP/1.1 408") for answer in answers)
    except ConnectionResetError:
        pass  # refused and closed while the rest was on its way
    finally:
        for raw in held:
            raw.close()
    gc.collect()
    until(lambda: served.own_nbytes() < before * 1.10, "memory is given back")


def test_a_request_that_does_not_arrive_is_closed(served: Served, honest: Honest) -> None:
    silent, dribbling = served.connection(), served.connection()
    with silent, dribbling:
        dribbling.settimeout(0.5)
        dribbling.sendall(b"GET /healthz HTTP/1.1\r\n")
        deadline = time.monotonic() + 60
        closed = b"open"
        while closed and time.monotonic() < deadline:
            with contextlib.suppress(TimeoutError):
                try:
                    dribbling.sendall(b"X: y\r\n")
                    closed = dribbling.recv(100)
                except ConnectionError:
                    closed = b""
        assert not closed, "headers that never end"
        with contextlib.suppress(ConnectionError):
            assert silent.recv(100) == b"", "a connection without a request"


def test_a_body_after_its_answer_or_without_need_ends_the_connection(served: Served, honest: Honest) -> None:
    for head_ in (
        "Transfer-Encoding: chunked",
        "Content-Length: 60000000",
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
    ):
        for request in ("GET /healthz", "GET /page", "DELETE /v1/videos/x", "POST /v1/nothing"):
            with served.connection() as raw, contextlib.suppress(ConnectionError):
                raw.sendall(f"{request} HTTP/1.1\r\nHost: 127.0.0.1:{served.port}\r\n{head_}\r\n\r\n".encode())
                assert raw.recv(1000).startswith(b"HTTP/1.1 4")
                raw.settimeout(40)
                for _ in range(100):
                    raw.sendall(b"1\r\nx\r\n" * 100)
                while raw.recv(65536):
                    pass


def test_a_body_that_comes_after_its_answer_leaves_the_connection_usable(served: Served) -> None:
    asked = f"POST /v1/nothing HTTP/1.1\r\nHost: 127.0.0.1:{served.port}\r\nContent-Length: 9\r\n\r\n".encode()
    with served.connection() as raw:
        for _ in range(3):
            raw.sendall(asked)
            answer = b""
            while b"Not Found" not in answer.partition(b"\r\n\r\n")[2]:
                answer += raw.recv(4000)
            assert answer.startswith(b"HTTP/1.1 404")
            raw.sendall(b"some text")


def test_bodies_in_pieces_of_one_byte_are_cut_off(served: Served, honest: Honest) -> None:
    sockets = [served.connection() for _ in range(6)]
    for raw in sockets:
        raw.sendall(head(served, "Transfer-Encoding: chunked"))
    for raw in sockets:
        with contextlib.suppress(ConnectionError):
            raw.sendall(b"1\r\n \r\n" * 500_000)
        raw.close()


def test_clients_that_do_not_read_are_disconnected(served: Served, honest: Honest) -> None:
    request = f"GET /page/page.css HTTP/1.1\r\nHost: 127.0.0.1:{served.port}\r\n\r\n".encode()
    held = [served.connection() for _ in range(10)]
    for raw in held:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.settimeout(0.5)
        with contextlib.suppress(TimeoutError, ConnectionError):
            while True:
                raw.sendall(request * 500)
    ports = {raw.getsockname()[1] for raw in held}

    def still_open() -> set[int]:
        connections = served.front.net_connections("tcp")
        return {each.raddr.port for each in connections if each.raddr and each.raddr.port in ports}

    assert still_open(), "they have asked and are being answered"
    until(lambda: not still_open(), "their connections are closed", 60)
    for raw in held:
        raw.close()


def test_bytes_that_are_not_http_are_refused(served: Served, honest: Honest) -> None:
    noise = [
        b"\x16\x03\x01\x02\x00\x01\x00", b"GET\r\n\r\n", b"\0" * 100, b"GET / HTTP/9.9\r\n\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 100_000 + b"\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", b"GET /\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"POST /v1/videos HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
        b"POST /v1/videos HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/videos HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1, 1\r\n\r\n{}",
        b"TRACE / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"CONNECT a:1 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ]  # fmt: skip
    for data in noise:
        with served.connection() as raw, contextlib.suppress(ConnectionError):
            raw.sendall(data)
            raw.shutdown(socket.SHUT_WR)
            answer = raw.recv(1000)
            assert not answer or answer.startswith((b"HTTP/1.1 4", b"HTTP/1.1 3")), (data[:40], answer)


def test_websockets_are_refused(served: Served) -> None:
    with served.connection() as raw:
        raw.sendall(
            f"GET /v1/videos HTTP/1.1\r\nHost: 127.0.0.1:{served.port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
            "Origin: http://evil.example\r\n\r\n".encode()
        )
        assert raw.recv(100).startswith(b"HTTP/1.1 403")


def test_thousands_of_silent_connections_do_not_delay_other_clients(served: Served, honest: Honest) -> None:
    before = served.front.num_fds()
    held = [served.connection() for _ in range(800)]
    started_s = time.monotonic()
    assert served.http.get("/healthz").status_code == 200
    assert time.monotonic() - started_s < honest.patience_s
    for each in held:
        each.close()
    until(lambda: served.front.num_fds() <= before + 20, "descriptors come back")


def test_refused_prompts_leave_no_data_behind(served: Served) -> None:
    before = served.files()
    for body in ({"prompt": ""}, {"prompt": "x" * 10_000}, {"prompt": "x", "task": "nothing"}, {"nothing": 1}):
        assert post_json(served, json.dumps(body).encode()).status_code == 400
    assert served.files() == before
