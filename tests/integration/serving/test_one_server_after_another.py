"""A second `mora serve` next to the first: the same bytes, low limits, and its end from another terminal."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import select
import socket
import subprocess
import time

import pytest
from mora_launch.jobs.doctor import examine
from mora_launch.jobs.run_status import read_status
from mora_launch.jobs.status import show_status, stop_run
from rich.console import Console

from .conftest import ROOT, TOYS, Serving, start, stop

pytestmark = pytest.mark.timeout(300)


def said(show: object, serving: Serving, **options: object) -> str:
    """Output of a command about the server's run."""
    sink = io.StringIO()
    assert callable(show)
    show(serving.run, Console(file=sink, width=200), **options)
    return sink.getvalue()


def test_the_same_seed_gives_the_same_bytes_after_a_restart(serving: Serving, small: Serving) -> None:
    body = {"prompt": "a blue square", "seed": 11}
    before, after = (each.images(**body).json()["data"][0]["b64_json"] for each in (serving, small))
    assert before == after


def test_requests_over_the_limit_are_told_to_come_back(small: Serving) -> None:
    body = {"prompt": "a cat", "num_inference_steps": 1000}
    under_way = [small.http.post("/v1/videos", json=body).json()["id"] for _ in range(2)]
    for path, more in (("videos", {"prompt": "a"}), ("images/generations", {"prompt": "a"})):
        refused = small.http.post(f"/v1/{path}", json=more)
        assert refused.status_code == 429
        assert refused.json()["error"]["message"] == "2 requests are in progress, the limit is 2; retry later"
        assert 1 <= int(refused.headers["retry-after"]) <= 600, "an estimate from the first, small picture"
    for identifier in under_way:
        small.http.delete(f"/v1/videos/{identifier}")
    deadline = time.monotonic() + 60
    while small.images(prompt="a cat").status_code != 200:
        assert time.monotonic() < deadline


def test_an_expired_video_is_reported_as_expired(small: Serving) -> None:
    job = small.video(task="text_to_video", prompt="a dog", seed=1)
    assert job["status"] == "completed"
    assert small.content(job)[4:8] == b"ftyp"
    assert len(list((small.run / "videos").glob(f"{job['id']}*"))) == 3, "video, thumbnail, record"
    deadline = time.monotonic() + 30
    while (answer := small.http.get(f"/v1/videos/{job['id']}")).status_code == 200:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert answer.status_code == 404
    assert answer.json()["error"]["message"].startswith(
        f"video_id: `{job['id']}` has expired: finished videos are kept for 4 s"
    )
    assert small.http.get(f"/v1/videos/{job['id']}/content").status_code == 404
    assert not list((small.run / "videos").glob(f"{job['id']}*"))


@pytest.mark.parametrize("path", ["/v1/videos", "/v1/images/edits"])
def test_two_gigabytes_in_a_stream_of_unknown_length_are_refused_early(small: Serving, path: str) -> None:
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n"
    form = b'--x\r\nContent-Disposition: form-data; name="input_reference"; filename="a"\r\n\r\n'
    chunk = b"10000\r\n" + bytes(1 << 16) + b"\r\n"
    num_sent = 0
    with socket.create_connection(("127.0.0.1", small.port), timeout=30) as upload:
        upload.sendall(f"{head}Content-Type: multipart/form-data; boundary=x\r\n\r\n".encode())
        upload.sendall(b"%x\r\n%s\r\n" % (len(form), form))
        with contextlib.suppress(ConnectionError):  # it hangs up once it has answered
            while num_sent < (2 << 30) and not select.select([upload], [], [], 0)[0]:
                upload.sendall(chunk)
                num_sent += 1 << 16
        answer = upload.recv(65536)
    assert answer.startswith(b"HTTP/1.1 413"), answer
    assert num_sent < 64 << 20, "most of it was never read"
    assert small.http.get("/healthz").status_code == 200


def test_only_results_go_to_the_terminal_and_the_rest_to_the_log(small: Serving) -> None:
    with socket.create_connection(("127.0.0.1", small.port), timeout=30) as confused:
        confused.sendall(b"\x16\x03\x01 this is no HTTP\r\n\r\n")
        assert confused.recv(100).startswith(b"HTTP/1.1 400")
    small.http.post("/v1/videos", content=b"no form", headers={"content-type": "multipart/form-data; boundary=x"})
    lines = [json.loads(line) for line in (small.run / "logs" / "front.1.jsonl").read_text().splitlines()]
    assert {line["role"] for line in lines} == {"front"}
    assert "Invalid HTTP request received." in {line["event"] for line in lines}
    shown = (small.run.parent / "serve.log").read_text()
    assert "HTTP request" not in shown
    assert "boundary" not in shown


def test_a_port_that_is_taken_is_refused_before_models_are_loaded(small: Serving) -> None:
    command = [str(ROOT / "mora"), "serve", str(TOYS), "--port", str(small.port), "--run", str(small.run)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stdout.strip() == (
        f"mora: --host 127.0.0.1 --port {small.port}: cannot listen on it: Address already in use"
    )


def test_a_server_can_be_inspected_from_another_terminal(small: Serving) -> None:
    status = read_status(small.run)
    assert (status.command, status.state, status.launcher_pid) == ("serve", "running", small.process.pid)
    roles = {role.role: role for role in status.roles}
    assert roles["image.0"].pid == small.server_process("image.0").pid
    assert all(role.state == "ready" and role.vitals["rss_nbytes"] > 1 << 20 for role in roles.values())
    shown = said(show_status, small, as_json=False)
    assert "serve: running, generation 1" in shown
    assert "waiting for calls" in shown
    assert "state: running" in said(lambda run, console: examine(run, None, console), small)


def test_the_next_server_of_a_run_continues_its_reviews(small: Serving) -> None:
    body = {"prompt": "a dog", "seed": 1}
    made = small.http.post("/v1/videos", json=body | {"review": True}).json()["id"]
    small.decide(made, "prompt", "accept")
    small.candidate(made, "image")
    assert "stopped" in said(stop_run, small, now=False, timeout_s=60.0)
    assert small.process.wait(10) == 0
    assert "serve: finished" in said(show_status, small, as_json=False)
    assert "state: finished" in said(lambda run, console: examine(run, None, console), small)
    assert "is not running" in said(stop_run, small, now=False, timeout_s=60.0)
    following = start(small.run.parent)
    try:
        (found,) = following.http.get("/v1/videos").json()["data"]
        assert (found["id"], found["status"], found["review"]) == (made, "failed", "stopped")
        assert found["error"]["message"] == "the server was stopped; the review can be resumed"
        assert following.http.post(f"/v1/videos/{made}/review/resume").status_code == 200
        prompt = following.candidate(made, "image")["candidate"]["prompt"]
        picture = following.http.get(f"/v1/videos/{made}/review/content").content
        alone = following.images(prompt=prompt, seed=1).json()["data"][0]["b64_json"]
        assert picture == base64.b64decode(alone)
        following.decide(made, "image", "accept")
        version = following.decide(made, "segment 1", "accept")
        late = following.http.post(f"/v1/videos/{made}/review", json={"version": version, "action": "stop"})
        assert late.status_code == 409
        reviewed, plain = following.finished(made), following.video(**body)
        assert following.content(reviewed) == following.content(plain)
    finally:
        stop(following)
