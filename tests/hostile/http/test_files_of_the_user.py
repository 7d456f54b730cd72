"""Remote client with a token, other local user: they try to get files that the server's user can read."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import httpx
import pytest
from hostile_serving import PATIENCE_S, SECRET, Honest, Served

pytestmark = pytest.mark.timeout(120)


def file_data(path: object) -> dict[str, Any]:
    return {"path": str(path), "url": None, "orig_name": "x", "meta": {"_type": "gradio.FileData"}}


def hostile_paths(served: Served, folder: Path) -> list[str]:
    """Files, devices, pipes and addresses that no request may open."""
    pipe = folder / "pipe"
    if not pipe.exists():
        os.mkfifo(pipe)
    return [
        str(served.secret), str(served.run / "token"), "/proc/self/environ", "/dev/zero", str(pipe), "/etc/passwd",
        f"file://{served.secret}", f"../../../..{served.secret}", "http://127.0.0.1:1/x", "https://evil.example/x.png",
    ]  # fmt: skip


def nothing_was_given(served: Served, answer: httpx.Response) -> None:
    """Assert a refusal by name, and no trace of the secret in anything that a client can read."""
    assert 400 <= answer.status_code < 500, answer.text
    for text in (answer.text, served.http.get("/v1/videos?limit=100").text):
        assert SECRET not in text
        assert "root:x:" not in text


@pytest.mark.parametrize("form", [str, file_data, lambda path: [path], lambda path: {"image_url": path}])
@pytest.mark.parametrize("name", ["input_reference", "prompt"])
def test_no_path_or_address_in_a_body_is_opened(
    served: Served, honest: Honest, tmp_path: Path, name: str, form: Any
) -> None:
    for path in hostile_paths(served, tmp_path):
        value = form(path)
        if name == "prompt" and isinstance(value, str):
            continue  # a path is a prompt like any other; it is text and stays text
        body = {"prompt": "x", "task": "image_to_video", name: value}
        answer = served.http.post("/v1/videos", json=body, timeout=PATIENCE_S)
        nothing_was_given(served, answer)
        assert answer.json()["error"]["param"] == name


@pytest.mark.parametrize("form", [str, file_data, lambda path: [path], lambda path: {"id": path}])
@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/v1/videos/edits", "video"), ("/v1/videos/extensions", "video"), ("/v1/images/edits", "image"),
        ("/v1/videos/sync", "image_reference"),
    ],
)  # fmt: skip
def test_no_path_or_address_in_place_of_a_video_or_picture_is_opened(
    served: Served, honest: Honest, tmp_path: Path, path: str, name: str, form: Any
) -> None:
    for given in hostile_paths(served, tmp_path):
        body = {"prompt": "x", name: form(given)}
        nothing_was_given(served, served.http.post(path, json=body, timeout=PATIENCE_S))


@pytest.mark.parametrize("task", ["image_to_video", "extend", "edit", "connect", "simulate"])
def test_text_in_place_of_a_file_is_refused(served: Served, tmp_path: Path, task: str) -> None:
    for path in hostile_paths(served, tmp_path):
        form = {"prompt": (None, "x"), "task": (None, task), "input_reference": (None, path)}
        nothing_was_given(served, served.http.post("/v1/videos", files=form, timeout=PATIENCE_S))
    answer = served.http.post("/v1/images/edits", files={"prompt": (None, "x"), "image": (None, str(served.secret))})
    nothing_was_given(served, answer)


@pytest.mark.parametrize(
    "url", ["data:", "data:image/png;base64", "data:image/png,x", "data:image/png;base64,///", "x"]
)
def test_odd_data_urls_are_refused(served: Served, url: str) -> None:
    nothing_was_given(served, served.http.post("/v1/videos", json={"prompt": "x", "input_reference": url}))


def test_addresses_of_the_old_page_do_not_exist(served: Served, tmp_path: Path) -> None:
    for door in ("/page/gradio_api", "/gradio_api"):
        for path in hostile_paths(served, tmp_path):
            join = {"data": ["text_to_video", file_data(path), None, 0, 5, False], "fn_index": 0, "session_hash": "x"}
            for route in ("/queue/join", "/run/begin", "/call/begin", "/upload"):
                assert served.http.post(door + route, json=join).status_code in (404, 405)
            assert served.http.get(f"{door}/file={path}").status_code == 404


@pytest.mark.parametrize(
    "path",
    [
        "/page/..%2f..%2f..%2f..%2fetc/passwd", "/page/%2e%2e/%2e%2e/etc/passwd", "/page//etc/passwd",
        "/page/../../../../etc/passwd", "/page/api.js%00.png", "/page/assets/../token", "/page/file=/etc/passwd",
        "/v1/videos/..%2f..%2ftoken/content", "/v1/videos/%2e%2e/content", "/v1/videos/x%00/content",
        "/page/serve.html/..", "/page/\\etc", "/v1/images/files/..%2f..%2ftoken", "/v1/images/files/%2e%2e/token",
    ],
)  # fmt: skip
def test_no_path_of_a_request_is_read_from_disk(served: Served, path: str) -> None:
    with served.connection() as raw:
        host = f"Host: 127.0.0.1:{served.port}\r\nConnection: close\r\n\r\n"
        raw.sendall(f"GET {path} HTTP/1.1\r\n{host}".encode())
        answer = b"".join(iter(lambda: raw.recv(65536), b""))
    assert answer.split(b" ", 2)[1] in (b"404", b"400")
    assert b"root:x:" not in answer


def test_file_names_of_uploads_are_ignored(served: Served) -> None:
    before = served.files()
    for name in ("../../../token", "/etc/cron.d/x", "..\\..\\x", "a\0b", "x" * 5000, "video_1.json"):
        files = {"input_reference": (name, b"\x89PNG\r\n\x1a\nno picture", "image/png"), "prompt": (None, "x")}
        nothing_was_given(served, served.http.post("/v1/videos", files=files))
    assert served.files() == before
    assert len(served.token) > 20


def test_prompts_that_are_markup_stay_text(served: Served) -> None:
    prompt = "<img src=//evil.example/x onerror=alert(1)> [a](javascript:1) \x1b[2J"
    job = served.http.post("/v1/videos", json={"prompt": prompt, "enhance": False}).json()
    answer = served.http.get(f"/v1/videos/{job['id']}")
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert json.loads(answer.text)["prompt"] == prompt
    assert "\x1b" not in answer.text, "escape codes are spelt out"
    shell = served.http.get("/page", params={"job": "<script>alert(1)</script>"})
    assert "alert(1)" not in shell.text
    policy = shell.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
