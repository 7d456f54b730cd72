"""The end of `mora serve`: accepted work is done, new work is refused, and a second signal ends it at once."""

from __future__ import annotations

import io
import json
import re
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from mora_launch.jobs.status import show_status
from rich.console import Console

from .conftest import DEADLINE_S, Serving, launch, start, stop, until

pytestmark = pytest.mark.timeout(300)
SOON = {"prompt": "a cat", "num_inference_steps": 500, "seed": 1}  # takes seconds
LATE = {"prompt": "a cat", "num_inference_steps": 1000, "seconds": 30, "seed": 1}  # takes minutes


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "served"


@pytest.fixture
def served(folder: Path) -> Iterator[Serving]:
    """A server that these tests end."""
    started = start(folder)
    try:
        yield started
    finally:
        stop(started)


def said(serving: Serving) -> str:
    return (serving.run.parent / "serve.log").read_text()


def shown_status(serving: Serving) -> str:
    sink = io.StringIO()
    show_status(serving.run, Console(file=sink, width=200), as_json=False)
    return sink.getvalue()


def created(serving: Serving, **body: Any) -> str:
    answer = serving.http.post("/v1/videos", json=body)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


def in_background(send: Callable[[], httpx.Response]) -> tuple[threading.Thread, list[httpx.Response]]:
    answers: list[httpx.Response] = []
    thread = threading.Thread(target=lambda: answers.append(send()))
    thread.start()
    return thread, answers


def test_a_server_that_is_asked_to_end_does_its_work_first(served: Serving, folder: Path) -> None:
    old = served.video(prompt="a dog", seed=1)
    deleted = created(served, **LATE)
    reviewed = created(served, prompt="a dog", seed=1, review=True)
    served.candidate(reviewed, "prompt")
    videos = [created(served, **SOON) for _ in range(2)]
    thread, answers = in_background(lambda: served.images(prompt="a cat", num_inference_steps=500, seed=1))
    until(lambda: served.metric("mora_requests_under_way") == 4, "the picture is admitted")

    served.process.send_signal(signal.SIGTERM)
    until(lambda: served.http.get("/readyz").status_code == 503, "it says that it is not ready")
    assert served.http.get("/readyz").json()["status"] == "stopping"
    assert served.http.get("/healthz").status_code == 200
    decision = {"version": 1, "action": "accept"}
    for path, body in (("videos", SOON), ("images/generations", SOON), (f"videos/{reviewed}/review", decision)):
        refused = served.http.post(f"/v1/{path}", json=body)
        assert refused.status_code == 503
        assert 1 <= int(refused.headers["retry-after"]) <= 30
    assert served.http.get(f"/v1/videos/{videos[0]}").json()["status"] in ("queued", "in_progress")
    assert served.content(old)[4:8] == b"ftyp"
    assert served.http.delete(f"/v1/videos/{deleted}").json()["deleted"]

    assert served.process.wait(DEADLINE_S) == 0
    thread.join(DEADLINE_S)
    assert answers[0].status_code == 200
    assert answers[0].json()["data"][0]["b64_json"]
    shown = said(served)
    assert "stopping: waiting up to 30 s for 4 videos and 1 request; signal again to end at once" in shown
    assert shown.rstrip().endswith("all work is done")
    following = start(folder)
    try:
        found = {job["id"]: job for job in following.http.get("/v1/videos").json()["data"]}
        assert {found[each]["status"] for each in [old["id"], *videos]} == {"completed"}
        assert following.content(found[videos[0]]) == following.content(found[videos[1]])
        assert found[reviewed]["error"]["code"] == "review_stopped"
        assert deleted not in found
        assert following.http.post(f"/v1/videos/{reviewed}/review/resume").status_code == 200
    finally:
        stop(following)


def record(serving: Serving, identifier: str) -> dict[str, Any]:
    return dict(json.loads((serving.run / "videos" / f"{identifier}.json").read_text()))


def test_what_is_not_done_in_time_is_stopped_and_says_so(folder: Path) -> None:
    served = start(folder, "--shutdown-timeout", "1")
    try:
        video = created(served, **LATE)
        thread, answers = in_background(lambda: served.images(prompt="a cat", num_inference_steps=1000, n=8))
        until(lambda: served.metric("mora_requests_under_way") == 2, "the picture is admitted")
        served.process.send_signal(signal.SIGTERM)
        assert served.process.wait(DEADLINE_S) == 0
        thread.join(DEADLINE_S)
    finally:
        stop(served)
    assert answers[0].status_code == 503
    error = answers[0].json()["error"]
    assert (error["message"], error["code"]) == ("the servers are being stopped", "server_stopped")
    assert record(served, video)["error"]["code"] == "server_stopped"
    assert said(served).rstrip().endswith("not done within 1 s: 1 video and 1 request")


def test_a_second_signal_ends_a_server_at_once(served: Serving) -> None:
    video = created(served, **LATE)
    served.process.send_signal(signal.SIGTERM)
    until(lambda: "signal again to end at once" in said(served), "it waits")
    until(lambda: re.search(r"serve: stopping, [12]?\d s left, ", shown_status(served)) is not None, "status says so")
    assert "image.0" in shown_status(served), "what its processes do is still shown"
    served.process.send_signal(signal.SIGINT)
    assert served.process.wait(20) == 130
    assert record(served, video)["error"]["code"] == "server_stopped"
    assert said(served).rstrip().endswith("mora: ended at once; not done: 1 video")


def test_a_server_answers_probes_while_its_models_load_and_can_be_ended(folder: Path) -> None:
    served = launch(folder)
    seen: list[int] = []
    try:
        until(lambda: served.process.poll() is not None or answers_probes(served, seen), said(served))
        loading = served.http.get("/readyz", headers={"host": "10.1.2.3"})
        assert (loading.status_code, loading.json()) == (503, {"ready": False, "status": "loading"})
        refused = served.images(prompt="a cat")
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
        assert "serve: loading, generation 1" in shown_status(served)
        served.process.send_signal(signal.SIGTERM)
        assert served.process.wait(DEADLINE_S) == 143
        assert said(served).rstrip().endswith("mora: interrupted")
    finally:
        stop(served)


def answers_probes(serving: Serving, seen: list[int]) -> bool:
    try:
        seen.append(serving.http.get("/healthz", headers={"host": "10.1.2.3"}).status_code)
    except httpx.TransportError:  # not listening yet
        return False
    return seen[-1] == 200


def test_a_server_whose_models_cannot_be_loaded_says_why_and_ends(folder: Path) -> None:
    served = launch(folder, "--set", "agents.image.options.weights=/nothing/here")
    try:
        assert served.process.wait(DEADLINE_S) == 1
        assert "mora: " in said(served)
        assert "/nothing/here" in said(served)
    finally:
        stop(served)
