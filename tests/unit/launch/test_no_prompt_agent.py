"""`serving.prompts.kind: none`: prompts stay as they are, and nothing offers to rewrite them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.launch.instant_server import InstantServer, instant_server, said

REFUSED = "enhance: this server has no prompt agent (serving.prompts.kind is none); leave it out"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[InstantServer]:
    with instant_server(tmp_path, "serving.prompts.kind=none") as started:
        yield started


def test_the_prompt_of_a_video_is_used_as_it_is_and_no_stage_rewrites_it(server: InstantServer) -> None:
    job = server.http.post("/v1/videos", json={"prompt": "a red circle", "seed": 1}).json()
    assert server.finished(job["id"])["status"] == "completed"
    stages = server.http.get(f"/v1/videos/{job['id']}/stages").json()["data"]
    assert [stage["name"] for stage in stages] == ["image", "segment 1"]
    assert server.pool.works[0].sample["prompts"] == "a red circle"


def test_a_request_for_the_prompt_agent_is_refused(server: InstantServer) -> None:
    body = {"prompt": "a red circle", "enhance": True}
    for path in ("/v1/videos", "/v1/images/generations"):
        assert said(server.http.post(path, json=body), 400) == REFUSED
    assert server.pool.submitted == []
    assert server.http.post("/v1/images/generations", json={**body, "enhance": False}).status_code == 200


def test_the_page_offers_no_prompt_agent(server: InstantServer, tmp_path: Path) -> None:
    told = server.http.get("/v1/tasks").json()
    assert not [task["id"] for task in [*told["data"], told["picture"]] if "enhance" in task["fields"]]
    (tmp_path / "other").mkdir()
    with instant_server(tmp_path / "other") as other:
        told = other.http.get("/v1/tasks").json()
        assert {"picture", "text_to_video"} <= {
            task["id"] for task in [*told["data"], told["picture"]] if "enhance" in task["fields"]
        }
