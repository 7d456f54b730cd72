"""`edit_image` changes pictures where an agent has it, else `image_to_image` with a strength."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mora_data.reading.timeline import Video
from mora_launch.chat.prompt_agent import prompt_agent
from mora_launch.serving.settings import PromptAgentSettings
from mora_launch.tasks.agents import Agents
from mora_launch.tasks.errors import BadRequest
from mora_launch.tasks.media import encode, png
from mora_launch.tasks.procedures import run_task
from mora_launch.tasks.request import TaskRequest, check_strength
from mora_launch.tasks.stages import Unreviewed

from tests.unit.launch.instant_server import SIDE, InstantPool, InstantServer, instant_server, said

PICTURE = "data:image/png;base64," + base64.b64encode(png(np.zeros((SIDE, SIDE, 3), np.uint8))).decode()
CLIP = ("a.mp4", encode(np.zeros((6, SIDE, SIDE, 3), np.uint8), 8.0, "mp4", {}))
REFUSED = "strength: the agent editor takes none, it follows the instruction; leave strength out"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[InstantServer]:
    """A server whose agents include an editor."""
    with instant_server(tmp_path) as started:
        started.pool.agents["edit_image"] = "editor"
        started.pool.negative.add("editor")
        yield started


def edited(pool: Any, shape: tuple[int, int], **about: Any) -> tuple[int, ...]:
    """The shape of the picture that the editor gets to change a picture of this shape."""
    known = pool.describe
    pool.describe = lambda name: {**known(name), **(about if name == "edit_image" else {})}
    agents = Agents(pool, prompt_agent(PromptAgentSettings()), sampling={}, deadline_s=60.0)
    agents.edit_image("make it green", 1, np.zeros((*shape, 3), np.uint8))
    return tuple(pool.works[-1].sample["images"].shape)


@pytest.mark.parametrize(
    ("shape", "about", "expected"),
    [
        ((64, 96), {"size_multiple": 8}, (64, 96, 3)),
        ((60, 100), {"size_multiple": 8}, (56, 96, 3)),
        ((576, 1024), {"size_multiple": 8, "largest_side": 512}, (288, 512, 3)),
        ((30, 1000), {"size_multiple": 8, "largest_side": 64}, (8, 64, 3)),
    ],
)
def test_an_edited_picture_keeps_its_size_as_far_as_the_model_can_make_it(
    shape: tuple[int, int], about: dict[str, int], expected: tuple[int, ...]
) -> None:
    pool = InstantPool()
    pool.agents["edit_image"] = "editor"
    assert edited(pool, shape, **about) == expected


def test_an_edit_by_instruction_gets_no_strength(server: InstantServer) -> None:
    answer = server.http.post("/v1/images/edits", json={"prompt": "in blue", "image": PICTURE, "n": 2})
    assert answer.status_code == 200, answer.text
    assert [name for name, _ in server.pool.submitted] == ["edit_image", "edit_image"]
    assert not any("strength" in shared for _, shared in server.pool.submitted)


def test_without_an_editor_a_picture_is_edited_with_the_strength_of_the_configuration(tmp_path: Path) -> None:
    with instant_server(tmp_path, "serving.edit_strength=0.3") as server:
        answer = server.http.post("/v1/images/edits", json={"prompt": "in blue", "image": PICTURE})
        assert answer.status_code == 200, answer.text
        ((name, shared),) = server.pool.submitted
        assert (name, shared["strength"]) == ("image_to_image", 0.3)
        told = server.http.get("/v1/tasks").json()
        assert told["limits"]["edit_strength"] == 0.3
        assert "strength" in next(task for task in told["data"] if task["id"] == "edit")["fields"]


def test_a_strength_is_refused_where_the_editor_takes_none(server: InstantServer) -> None:
    body = {"prompt": "in blue", "image": PICTURE, "strength": 0.5}
    assert said(server.http.post("/v1/images/edits", json=body), 400) == REFUSED
    for path, data in (
        ("/v1/videos/edits", {}),
        ("/v1/videos", {"task": "simulate"}),
    ):
        field = "video" if path.endswith("edits") else "input_reference"
        answer = server.http.post(path, data={"prompt": "in blue", "strength": "0.5", **data}, files=[(field, CLIP)])
        assert said(answer, 400) == REFUSED
    assert server.pool.submitted == []


def test_a_task_that_changes_no_picture_is_not_asked_about_its_strength() -> None:
    pool: Any = InstantPool()
    pool.agents["edit_image"] = "editor"
    check_strength(0.5, "text_to_video", pool)
    check_strength(None, "edit", pool)
    with pytest.raises(BadRequest, match="the agent editor takes none"):
        check_strength(0.5, "edit", pool)


def test_a_video_is_edited_by_the_editor(server: InstantServer) -> None:
    answer = server.http.post(
        "/v1/videos/edits", data={"prompt": "make it green", "seed": "3"}, files=[("video", CLIP)]
    )
    assert answer.status_code == 200, answer.text
    assert server.finished(answer.json()["id"])["status"] == "completed"
    assert [name for name, _ in server.pool.submitted] == ["edit_image", "image_to_video", "extend_video"]


def test_the_page_learns_that_no_strength_is_taken(server: InstantServer) -> None:
    told = server.http.get("/v1/tasks").json()
    assert told["limits"]["edit_strength"] is None
    assert not [task["id"] for task in told["data"] if "strength" in task["fields"]]


def test_a_negative_prompt_is_asked_of_the_editor_and_not_of_the_agent_in_its_place(server: InstantServer) -> None:
    server.pool.agents["image_to_image"] = "refiner"  # takes no negative prompt, and is not called
    data = {"prompt": "in blue", "negative_prompt": "red"}
    assert server.http.post("/v1/videos/edits", data=data, files=[("video", CLIP)]).status_code == 200
    server.pool.negative.remove("editor")
    refused = server.http.post("/v1/videos/edits", data=data, files=[("video", CLIP)])
    assert said(refused, 400).startswith("negative_prompt: the agent editor takes none")


def test_a_transition_of_another_size_gets_the_size_of_the_other_clips() -> None:
    pool: Any = InstantPool()
    known, size = pool.describe, {"height": SIDE // 2, "width": SIDE // 2}
    pool.describe = lambda name: {**known(name), **(size if name == "connect_videos" else {})}
    whole = pool._shape
    pool._shape = lambda name, shared: (5, 16, 16, 3) if name == "connect_videos" else whole(name, shared)
    videos = (Video(np.zeros((6, SIDE, SIDE, 3), np.uint8), 8.0),) * 2
    request = TaskRequest("connect", "one becomes the other", 7, 8.0, videos=videos)
    agents = Agents(pool, prompt_agent(PromptAgentSettings()), sampling=request.sampling(), deadline_s=60.0)
    made = run_task(request, agents, Unreviewed(7))
    assert made.shape == (6 + 3 + 6, SIDE, SIDE, 3)
    sample = pool.works[-1].sample
    assert sample["images"].shape == sample["images_after"].shape == (16, 16, 3)
