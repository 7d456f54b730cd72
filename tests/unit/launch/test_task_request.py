"""A request for a task has every file that the task needs, and no unused one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from mora_data.reading.timeline import Video
from mora_launch.serving.settings import ServingSettings
from mora_launch.tasks.errors import BadRequest
from mora_launch.tasks.request import TaskRequest, check_fields

PICTURE = np.zeros((8, 8, 3), dtype=np.uint8)
CLIP = Video(np.zeros((3, 8, 8, 3), dtype=np.uint8), 8.0)


def request(task: str, **files: Any) -> TaskRequest:
    return TaskRequest(task, "a cat", 7, 8.0, **files)


@pytest.mark.parametrize(
    ("task", "files"),
    [
        ("text_to_video", {}),
        ("image_to_video", {"image": PICTURE}),
        ("extend", {"videos": (CLIP,)}),
        ("edit", {"videos": (CLIP,)}),
        ("connect", {"videos": (CLIP, CLIP)}),
        ("simulate", {}),
        ("simulate", {"videos": (CLIP,)}),
    ],
)
def test_the_files_of_a_task_are_accepted(task: str, files: dict[str, Any]) -> None:
    check_fields(request(task, **files), ServingSettings())


@pytest.mark.parametrize(
    ("task", "files", "said"),
    [
        ("image_to_video", {}, "image: image_to_video needs a picture"),
        ("image_to_video", {"image": PICTURE, "videos": (CLIP,)}, "video: image_to_video takes no video(s), got 1"),
        ("text_to_video", {"image": PICTURE}, "image: text_to_video takes no picture; image_to_video does"),
        ("text_to_video", {"videos": (CLIP,)}, "video: text_to_video takes no video(s), got 1"),
        ("extend", {"videos": (CLIP, CLIP)}, "video: extend takes 1 video(s), got 2"),
        ("edit", {"image": PICTURE, "videos": (CLIP,)}, "image: edit takes no picture"),
        ("connect", {"videos": (CLIP,)}, "video: connect needs 2 video(s), got 1"),
        ("connect", {"videos": (CLIP,) * 3}, "video: connect takes 2 video(s), got 3"),
        ("simulate", {"videos": (CLIP, CLIP)}, "video: simulate takes 1 video(s), got 2"),
    ],
)
def test_a_missing_or_unused_file_is_refused(task: str, files: dict[str, Any], said: str) -> None:
    with pytest.raises(BadRequest) as refused:
        check_fields(request(task, **files), ServingSettings())
    assert str(refused.value).startswith(said)
