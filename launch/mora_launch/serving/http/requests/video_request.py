"""From the fields of a request to the video job that it asks for."""

from __future__ import annotations

import random
from dataclasses import replace

from mora_data.reading.fitting import Clip
from mora_data.reading.timeline import Video

from mora_launch.limits import MAX_SEED
from mora_launch.serving.http.front import Front
from mora_launch.serving.http.jobs.video_job import MEDIA_TYPES, VideoJob
from mora_launch.serving.http.requests.fields import RequestFields
from mora_launch.serving.http.requests.prompt_turns import enhances
from mora_launch.serving.http.requests.sizes import asked_size
from mora_launch.tasks.errors import BadRequest
from mora_launch.tasks.media import check_encodable, chosen_codec
from mora_launch.tasks.request import (
    TaskRequest,
    check_fps,
    check_sampling,
    check_size,
    check_strength,
    check_texts,
)

_CAPABILITIES = {"extend": "extend_video", "connect": "connect_videos"}  # of the agent that makes the video


def requested_job(
    front: Front, fields: RequestFields, *, task: str | None = None, source: VideoJob | None = None
) -> VideoJob:
    """Return the requested job without its files.

    Args:
        task: that of the endpoint; None = the field `task`.
        source: the finished video that the job begins with; the result is like it in what the request leaves open.

    Raises:
        BadRequest: a field is invalid.
    """
    settings = front.config.serving
    if fields.integer("n") not in (None, 1):
        raise BadRequest("n", "expected 1; one request makes one video")
    task = task or (fields.text("task") or "").replace("-", "_")
    model = front.check_model(fields.text("model"), _CAPABILITIES.get(task, "image_to_video"))
    kind = fields.text("format") or (source.kind if source else "mp4")
    if kind not in MEDIA_TYPES:
        raise BadRequest("format", f"expected one of {', '.join(MEDIA_TYPES)}, got {kind[:20]}")
    codec = fields.text("codec")
    chosen_codec(kind, codec)
    about = front.pool.describe("image_to_video")
    size = asked_size(fields) or (f"{source.size[1]}x{source.size[0]}" if source else None)
    height, width = check_size(size, about, settings)
    request = _request(front, fields, task, source)
    check_encodable(kind, (height, width), request.fps)
    check_texts(request, settings)
    check_strength(fields.number("strength"), task, front.pool)
    check_sampling(request.num_inference_steps, request.guidance_scale, about)
    return VideoJob(request, model, (height, width), kind, codec, remixed_from=source.id if source else None)


def _request(front: Front, fields: RequestFields, task: str, source: VideoJob | None) -> TaskRequest:
    asked_fps = fields.number("fps")
    own_fps = source.request.fps if source else front.config.clip.fps
    fps = own_fps if asked_fps is None else check_fps(asked_fps)
    seed, strength = fields.integer("seed"), fields.number("strength")
    return TaskRequest(
        task, fields.text("prompt") or "", random.SystemRandom().randrange(MAX_SEED) if seed is None else seed, fps,
        None, (), _seconds(front, fields, fps), front.config.serving.edit_strength if strength is None else strength,
        fields.integer("num_inference_steps"), fields.number("guidance_scale"),
        enhances(fields, front.config.serving, usually=front.config.serving.prompts.is_on),
        fields.text("negative_prompt"),
    )  # fmt: skip


def _seconds(front: Front, fields: RequestFields, fps: float) -> float | None:
    seconds, frames = fields.number("seconds"), fields.integer("num_frames")
    if frames is None:
        return seconds
    if seconds is not None:
        raise BadRequest("num_frames", "is given together with seconds; give one of them")
    limit = int(front.config.serving.max_seconds * fps)
    if not 2 <= frames <= limit:
        raise BadRequest("num_frames", f"expected 2 to {limit}, got {frames}")
    return frames / fps


def with_files(request: TaskRequest, image: Clip | None, videos: tuple[Video, ...]) -> TaskRequest:
    """Add the decoded files to a request, and derive the task from them if the request names none."""
    default_task = "image_to_video" if image is not None else "extend" if videos else "text_to_video"
    return replace(request, task=request.task or default_task, image=image, videos=videos)
