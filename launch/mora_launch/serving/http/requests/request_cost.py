"""The cost of whole requests, estimated before they run; see `mora_launch.serving.cost`."""

from __future__ import annotations

import math
from typing import Any

from mora_data.reading.timeline import num_frames_at

from mora_launch.config.capability import PICTURES
from mora_launch.config.train_config import TrainConfig
from mora_launch.limits import MAX_FPS, MAX_NUM_IMAGES, MAX_NUM_STEPS
from mora_launch.serving.cost import call_cost
from mora_launch.serving.server_pool import ServerPool
from mora_launch.tasks.catalog import editor
from mora_launch.tasks.continuation import wanted_frames
from mora_launch.tasks.length import changes_video
from mora_launch.tasks.request import TaskRequest


def task_cost(request: TaskRequest, pool: ServerPool) -> float:
    """Return the megapixel-steps of all stages of a task, each taken once."""
    shared = request.sampling()
    clip = pool.describe("image_to_video")
    is_changed = changes_video(request)
    given = num_frames_at(request.videos[0], request.fps) if is_changed else clip["num_frames"]
    num_frames = wanted_frames(request.seconds, request.fps, given)
    num_clips = max(1, math.ceil((num_frames - 1) / max(1, clip["num_frames"] - 1)))
    cost: float = num_clips * call_cost("image_to_video", clip, shared)
    if is_changed:
        cost += _picture(pool, editor(pool.capabilities()), shared)
    elif request.image is None and not request.videos:
        cost += _picture(pool, "text_to_image", shared)
    return cost


def _picture(pool: ServerPool, capability: str, shared: dict[str, Any]) -> float:
    return call_cost(capability, pool.describe(capability), shared) if capability in pool.capabilities() else 0.0


def default_max_cost(pool: ServerPool, config: TrainConfig) -> float:
    """Return the limit that admits `max_waiting` default requests, and any request that all other limits admit."""
    settings, known = config.serving, pool.capabilities()
    pictures = [name for name in known if name in PICTURES]
    usual = [_picture(pool, name, {}) for name in pictures]
    largest = [MAX_NUM_IMAGES * _picture(pool, name, _largest(pool.describe(name))) for name in pictures]
    if "image_to_video" in known:
        usual.append(task_cost(TaskRequest("text_to_video", "", 0, config.clip.fps), pool))
        longest_s = max(settings.max_seconds, settings.max_frames_read / MAX_FPS)
        video = TaskRequest("text_to_video", "", 0, MAX_FPS, seconds=longest_s, num_inference_steps=MAX_NUM_STEPS)
        largest.append(task_cost(video, pool))
    return max(settings.max_waiting * max(usual, default=1.0), *largest)


def _largest(about: dict[str, Any]) -> dict[str, Any]:
    side = about.get("largest_side", max(about["height"], about["width"]))
    return {"height": side, "width": side, "num_inference_steps": MAX_NUM_STEPS}
