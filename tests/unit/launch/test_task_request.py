"""A request for a task has every file that the task needs, and no unused one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from mora_data.reading.timeline import Video
from mora_launch.serving.settings import ServingSettings
from mora_launch.tasks.continuation import wanted_frames
from mora_launch.tasks.errors import BadRequest
from mora_launch.tasks.request import TaskRequest, check_fields, check_size

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


def test_what_is_lost_of_a_given_video_is_told() -> None:
    frames = np.zeros((4, 32, 32, 3), np.uint8)
    broken = "breaks off after frame 4 (Invalid data)"
    videos = (Video(frames, 8.0), Video(frames, 8.0, has_sound=True, note=broken))
    request = TaskRequest("connect", "x", 0, 8.0, videos=videos)
    assert request.loses_sound
    assert request.notes == [
        f"video 2: {broken}; the frames before are used", "the sound of the given video is left out",
    ]  # fmt: skip
    quiet = TaskRequest("extend", "x", 0, 8.0, videos=videos[:1])
    assert (quiet.loses_sound, quiet.notes) == (False, [])


def test_a_video_with_a_long_pause_counts_by_its_length() -> None:
    video = Video(np.zeros((2, 32, 32, 3), np.uint8), 8.0, starts_s=(0.0, 3000.0))
    with pytest.raises(BadRequest, match=r"video: expected at most \d+ frames at 8 a second, got 24001; cut the video"):
        check_fields(TaskRequest("extend", "x", 0, 8.0, videos=(video,)), ServingSettings())


@pytest.mark.parametrize(("seconds", "fps"), [(2, 8), (0.25, 8), (49 / 30, 30), (0.333333, 9), (4, 7.5), (60, 8)])
def test_a_length_of_whole_frames_is_made_exactly(seconds: float, fps: float) -> None:
    check_fields(TaskRequest("text_to_video", "a cat", 7, fps, seconds=seconds), ServingSettings())
    assert wanted_frames(seconds, fps, 5) == round(seconds * fps)


@pytest.mark.parametrize(
    ("seconds", "fps", "said"),
    [
        (1.3, 8, "seconds: expected whole frames at 8 a second; the nearest lengths are 1.25 and 1.375, got 1.3"),
        (
            4,
            29.97,
            "seconds: expected whole frames at 29.97 a second; the nearest lengths are 3.97064 and 4.004, got 4",
        ),
        (0.125, 8, "seconds: expected at least two frames, 0.25 at 8 a second, got 0.125"),
        (0, 8, "seconds: expected more than 0, at most 60, got 0"),
        (61, 8, "seconds: expected more than 0, at most 60, got 61"),
    ],
)
def test_another_length_is_refused_with_the_nearest_ones(seconds: float, fps: float, said: str) -> None:
    with pytest.raises(BadRequest) as refused:
        check_fields(TaskRequest("text_to_video", "a cat", 7, fps, seconds=seconds), ServingSettings())
    assert str(refused.value) == said


def test_the_nearest_of_the_possible_sizes_is_named() -> None:
    about, settings = {"width": 640, "height": 480, "size_multiple": 16}, ServingSettings(sizes=("320x240", "325x240"))
    assert check_size("320x240", about, settings) == (240, 320)
    assert check_size("325x240", about, settings) == (240, 325), "frames are resized"
    for size, said in (
        ("641x481", "; the nearest is 640x480"),
        ("326x240", "; the nearest is 320x240"),
        ("x", "got x"),
    ):
        with pytest.raises(BadRequest) as refused:
            check_size(size, about, settings, is_drawn=True)
        assert str(refused.value).startswith("size: expected one of 640x480, 320x240, got ")
        assert str(refused.value).endswith(said)
