"""Endpoints that change files of a job do not stop the server while the disk is slow."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from instant_server import InstantServer, instant_server
from mora_launch.review.session import ReviewSession


@pytest.fixture
def served(tmp_path: Path) -> Iterator[InstantServer]:
    with instant_server(tmp_path) as made:
        yield made


@pytest.mark.parametrize(
    ("owner", "name", "method", "path"),
    [
        ("jobs", "delete", "DELETE", ""),
        ("jobs", "resume", "POST", "/review/resume"),
        ("session", "decide", "POST", "/review"),
    ],
)
def test_others_are_answered_while_the_disk_is_slow(
    served: InstantServer, monkeypatch: pytest.MonkeyPatch, owner: str, name: str, method: str, path: str
) -> None:
    job = served.http.post("/v1/videos", json={"prompt": "a red circle", "review": True}).json()["id"]
    begun, may_end = threading.Event(), threading.Event()

    def slow(*_: Any) -> Any:
        begun.set()
        assert may_end.wait(20)
        return served.jobs.get(job)

    monkeypatch.setattr(served.jobs if owner == "jobs" else ReviewSession, name, slow)
    body = {"version": 1, "action": "accept"} if name == "decide" else None
    with ThreadPoolExecutor(2) as clients:
        try:
            changing = clients.submit(served.http.request, method, f"/v1/videos/{job}{path}", json=body)
            assert begun.wait(20)
            assert clients.submit(served.http.get, f"/v1/videos/{job}").result(10).status_code == 200
            assert not changing.done()
        finally:
            may_end.set()
        assert changing.result(20).status_code == 200
