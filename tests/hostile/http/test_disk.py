"""Remote client with a token: it tries to fill the disk with reviews and videos."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import httpx
import pytest
from hostile_media import png
from hostile_serving import Honest, Served, until

pytestmark = pytest.mark.timeout(240)
MAX_REVIEW_NBYTES = 18_000_000  # of the server's settings, see conftest
MB = 1 << 20


def review(served: Served, padding: int = 0) -> httpx.Response:
    files = {"prompt": (None, "x"), "review": (None, "true")}
    sent: Any = {**files, "input_reference": ("x.png", png(64, 64, padding=padding))} if padding else files
    return served.http.post("/v1/videos", files=sent)


def state(served: Served, identifier: str) -> dict[str, Any]:
    return dict(served.http.get(f"/v1/videos/{identifier}/review").json())


def stop(served: Served, identifier: str) -> None:
    until(lambda: state(served, identifier).get("status") == "waiting", "the review waits")
    decision = {"version": state(served, identifier)["version"], "action": "stop"}
    assert served.http.post(f"/v1/videos/{identifier}/review", json=decision).status_code == 200
    until(lambda: served.http.get(f"/v1/videos/{identifier}").json()["status"] == "failed", "the review has stopped")


def kept_nbytes(served: Served) -> int:
    return sum(size for name, size in served.files().items() if ".input-" in name or ".review/" in name)


def test_stopped_reviews_are_limited_and_the_newest_stay(served: Served, honest: Honest) -> None:
    identifiers = []
    for _ in range(6):
        made = review(served, 6 * MB)
        assert made.status_code == 200, made.text
        identifiers.append(made.json()["id"])
        stop(served, identifiers[-1])
        assert kept_nbytes(served) <= MAX_REVIEW_NBYTES
    gone = served.http.get(f"/v1/videos/{identifiers[0]}")
    assert gone.status_code == 404
    assert "has expired" in gone.text
    assert served.http.post(f"/v1/videos/{identifiers[-1]}/review/resume").status_code == 200
    for identifier in identifiers:
        served.http.delete(f"/v1/videos/{identifier}")
    until(lambda: kept_nbytes(served) == 0, "nothing is left on the disk")


def test_open_reviews_are_limited_and_existing_ones_continue(served: Served, honest: Honest) -> None:
    answers = [review(served, 6 * MB) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 429, 429]
    assert "open reviews use" in answers[-1].text
    assert "retry-after" in answers[-1].headers
    assert review(served).status_code == 200, "one that needs little still fits"
    for job in served.http.get("/v1/videos?limit=100").json()["data"]:
        served.http.delete(f"/v1/videos/{job['id']}")
    until(lambda: kept_nbytes(served) == 0, "nothing is left on the disk")


def test_endless_edits_keep_one_candidate(served: Served) -> None:
    identifier = review(served).json()["id"]
    sizes = []
    for number in range(8):
        until(lambda: state(served, identifier).get("status") == "waiting", "the review waits")
        now = state(served, identifier)
        action = "accept" if now["candidate"]["stage"] == "prompt" else "edit"
        decision = {"version": now["version"], "action": action, "prompt": f"number {number}"}
        assert served.http.post(f"/v1/videos/{identifier}/review", json=decision).status_code == 200
        served.http.get(f"/v1/videos/{identifier}/review/content")
        sizes.append(kept_nbytes(served))
    assert sizes[-1] < 3 * max(sizes[:3]), sizes
    served.http.delete(f"/v1/videos/{identifier}")
    until(lambda: kept_nbytes(served) == 0, "nothing is left on the disk")


def test_no_upload_stays_in_the_temporary_folder(served: Served) -> None:
    folder = Path(tempfile.gettempdir())
    before = set(os.listdir(folder))
    files = {"input_reference": ("x.png", png(64, 64, padding=5 * MB)), "prompt": (None, "x")}
    assert served.http.post("/v1/videos", files=files).status_code == 200
    assert served.http.post("/v1/videos", files={**files, "nothing": (None, "x")}).status_code == 400
    ours = {name for name in set(os.listdir(folder)) - before if not name.startswith(("pytest", "mora-", "."))}
    assert not ours
