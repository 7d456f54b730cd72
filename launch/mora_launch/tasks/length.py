"""The length of a task's result, as far as it is known before the task runs."""

from __future__ import annotations

from mora_data.reading.timeline import num_frames_at

from mora_launch.serving.server_pool import ServerPool
from mora_launch.tasks.continuation import wanted_frames
from mora_launch.tasks.request import TaskRequest

_CHANGING = ("edit", "simulate")  # tasks that change the first frame of a given video, and keep its length


def changes_video(request: TaskRequest) -> bool:
    """Whether the result is a given video from a changed first frame on."""
    return request.task in _CHANGING and bool(request.videos)


def planned_frames(request: TaskRequest, pool: ServerPool) -> int:
    """Return the number of frames that the result will have, with the given videos that it begins and ends with."""
    given = [num_frames_at(video, request.fps) for video in request.videos]
    if request.task == "connect":
        transition = _clip_frames("connect_videos", pool)
        return sum(given) + transition - 2  # its ends are frames of the two videos
    if request.task == "extend":
        # the clip of a continuation begins with the last given frame
        return sum(given) + wanted_frames(request.seconds, request.fps, _clip_frames("extend_video", pool) - 1)
    own = given[0] if changes_video(request) else _clip_frames("image_to_video", pool)
    return wanted_frames(request.seconds, request.fps, own)


def _clip_frames(capability: str, pool: ServerPool) -> int:
    known = capability if capability in pool.capabilities() else "image_to_video"  # the task itself refuses to run
    return int(pool.describe(known)["num_frames"])
