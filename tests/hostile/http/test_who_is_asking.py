"""Other local user, web site in the browser: neither passes for the server's own user."""

from __future__ import annotations

import re
import socket
from urllib.parse import urlsplit

import httpx
import pytest
from hostile_serving import Served

ROUTES = [
    ("GET", "/v1/models"), ("GET", "/v1/models/mora"), ("GET", "/v1/videos"), ("GET", "/v1/videos/x"),
    ("GET", "/v1/videos/x/content"), ("DELETE", "/v1/videos/x"), ("POST", "/v1/videos"), ("GET", "/v1/tasks"),
    ("POST", "/v1/videos/sync"), ("POST", "/v1/videos/edits"), ("POST", "/v1/videos/extensions"),
    ("POST", "/v1/videos/x/remix"), ("GET", "/v1/images/files/x.png"), ("HEAD", "/v1/videos/x/content"),
    ("POST", "/v1/images/generations"), ("POST", "/v1/images/edits"), ("GET", "/metrics"), ("GET", "/openapi.json"),
    ("GET", "/v1/videos/x/stages"), ("GET", "/v1/videos/x/stages/0/content"),
    ("GET", "/v1/videos/x/review"), ("POST", "/v1/videos/x/review"), ("OPTIONS", "/v1/videos"), ("GET", "//healthz"),
    ("GET", "/healthz/../v1/models"), ("GET", "/page/../v1/videos"), ("GET", "/nothing"), ("GET", "/page/nothing.js"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_another_local_user_is_refused_without_the_token(other_user: httpx.Client, method: str, path: str) -> None:
    answer = other_user.request(method, f"{other_user.base_url!s}".rstrip("/") + path)
    assert answer.status_code == 401
    assert method == "HEAD" or answer.json()["error"]["param"] == "authorization"


def test_the_token_is_enough_for_another_local_user(other_user: httpx.Client, served: Served) -> None:
    bearing = {"authorization": f"Bearer {served.token}"}
    assert other_user.get("/v1/models", headers=bearing).status_code == 200
    wrong = [
        {"authorization": "Bearer none"}, {"authorization": f"Bearer {served.token}x"}, {"x-token": served.token},
        {"authorization": served.token}, {"cookie": f"mora_token={served.token}"},
        {"x-forwarded-for": "127.0.0.1"}, {"forwarded": "for=127.0.0.1"}, {"x-real-ip": "127.0.0.1"},
    ]  # fmt: skip
    assert {other_user.get("/v1/models", headers=headers).status_code for headers in wrong} == {401}
    doubled = [("authorization", f"Bearer {served.token}"), ("authorization", "Bearer x")]
    assert other_user.get("/v1/models", headers=doubled).status_code == 401


def test_the_printed_link_opens_the_page_and_sets_no_cookie(other_user: httpx.Client, served: Served) -> None:
    printed = (served.run.parent / "serve.log").read_text().replace("\n", "")
    link = re.search(r"http://\S+/page\?token=[\w-]+", printed)
    assert link is not None
    opened = other_user.get(link[0].partition(str(served.port))[2])
    assert opened.status_code == 200
    assert "set-cookie" not in opened.headers
    assert served.token not in opened.text
    without = other_user.get("/page")
    assert (without.status_code, without.text) == (401, opened.text), "the page holds no data, and asks for the token"


def test_the_servers_own_user_needs_no_token(served: Served) -> None:
    assert served.http.get("/v1/models").status_code == 200
    assert served.http.get("/v1/models", headers={"authorization": "Bearer none"}).status_code == 200


def test_token_and_keys_are_private_to_the_user_and_in_no_log(served: Served) -> None:
    assert (served.run / "token").stat().st_mode & 0o777 == 0o600
    assert served.run.stat().st_mode & 0o777 == 0o700
    for path in (served.run / "logs").iterdir():
        assert served.token.encode() not in path.read_bytes(), path.name


@pytest.mark.parametrize(
    "origin", ["http://localhost:9999", "http://127.0.0.1:9", "null", "http://evil.example", "http://[", "https://x"]
)
@pytest.mark.parametrize(("method", "path"), [("GET", "/v1/videos"), ("POST", "/v1/videos"), ("GET", "/page")])
def test_pages_of_other_sites_and_ports_are_refused_and_read_nothing(
    served: Served, origin: str, method: str, path: str
) -> None:
    before = len(served.http.get("/v1/videos").json()["data"])
    answer = served.http.request(method, path, headers={"origin": origin}, data={"prompt": "by another site"})
    assert answer.status_code == 403
    assert not [name for name in answer.headers if name.startswith("access-control")]
    assert len(served.http.get("/v1/videos").json()["data"]) == before


def test_forms_and_pictures_of_other_sites_are_refused_by_what_the_browser_says(served: Served) -> None:
    for site in ("cross-site", "same-site"):
        headers = {"sec-fetch-site": site, "sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"}
        assert served.http.get("/v1/videos", headers=headers).status_code == 403
        form = {"sec-fetch-site": site, "sec-fetch-mode": "navigate"}
        assert served.http.post("/v1/videos", headers=form, data={"prompt": "x"}).status_code == 403


def test_no_answer_allows_other_origins(served: Served) -> None:
    own = {"origin": served.url}
    for path in ("/v1/videos", "/page", "/page/api.js", "/metrics", "/openapi.json"):
        answer = served.http.get(path, headers=own)
        assert answer.status_code == 200
        assert not [name for name in answer.headers if name.startswith("access-control")]
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"


@pytest.mark.parametrize(
    "host", ["[", "[::1", "]", "evil.example", "127.0.0.1.evil.example", "localhost@evil", "a:b:c", "", "%00", "127.1"]
)
def test_no_host_name_causes_an_error_of_the_server(served: Served, host: str) -> None:
    for path in ("/v1/models", "/page"):
        assert served.http.get(path, headers={"host": host}).status_code in (400, 403)
    assert served.http.get("/healthz", headers={"host": host}).status_code in (200, 400)


def test_a_probe_under_any_name_is_told_the_status_alone(served: Served) -> None:
    for headers in ({"host": "10.1.2.3:8000"}, {"host": "evil.example", "origin": "http://evil.example"}):
        assert served.http.get("/healthz", headers=headers).status_code == 200
        ready = served.http.get("/readyz", headers=headers)
        assert set(ready.json()) == {"ready", "status"}


def test_a_refused_client_reads_its_answer_although_its_body_comes_later(served: Served) -> None:
    address = urlsplit(served.url)
    head = f"POST /v1/videos HTTP/1.1\r\nHost: {address.netloc}\r\nOrigin: null\r\nContent-Length: 1000\r\n\r\n"
    again = f"GET /healthz HTTP/1.1\r\nHost: {address.netloc}\r\nConnection: close\r\n\r\n"
    with socket.create_connection((address.hostname or "", address.port or 0), timeout=30) as raw:
        raw.sendall(head.encode())
        assert raw.recv(12) == b"HTTP/1.1 403"
        raw.sendall(bytes(1000) + again.encode())
        rest = b"".join(iter(lambda: raw.recv(1 << 16), b""))
    assert b"HTTP/1.1 200" in rest, "the connection was not reset"
