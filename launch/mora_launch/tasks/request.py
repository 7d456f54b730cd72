"""What a task is asked for, and what it makes; the same for command line, HTTP and page."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from mora_launch.limits import MAX_SEED
from mora_launch.serving.server_pool import ServerPool
from mora_launch.serving.settings import ServingSettings
from mora_launch.tasks.errors import BadRequest
from mora_launch.tasks.media import Clip, Video

TASKS = ("text_to_video", "image_to_video", "extend", "edit", "connect", "simulate")
NEEDS_IMAGE = ("image_to_video",)
NUM_VIDEOS = {"extend": 1, "edit": 1, "connect": 2}
OPTIONAL_VIDEOS = {"simulate": 1}  # beyond those


@dataclass(frozen=True)
class TaskRequest:
    """One run of a task.

    Attributes:
        seconds: wanted length of what is generated; None = one clip of the model.
        fps: of the model's clips, and of the result.
    """

    task: str
    prompt: str
    seed: int
    fps: float
    image: Clip | None = None  # (H, W, 3)
    videos: tuple[Video, ...] = ()
    seconds: float | None = None
    strength: float | None = None
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    enhance: bool = True

    @property
    def nbytes(self) -> int:
        """Of its picture and videos, decoded."""
        image_nbytes = 0 if self.image is None else self.image.nbytes
        return image_nbytes + sum(video.frames.nbytes for video in self.videos)

    def sampling(self) -> dict[str, Any]:
        """Settings that every stage shares."""
        return {"num_inference_steps": self.num_inference_steps, "guidance_scale": self.guidance_scale}


def check_request(request: TaskRequest, pool: ServerPool, settings: ServingSettings) -> None:
    """Refuse what cannot be made, before anything runs. Raises: BadRequest naming field and limit."""
    check_fields(request, settings)
    check_sampling(request.num_inference_steps, request.guidance_scale, pool.describe("image_to_video"))


def check_fields(request: TaskRequest, settings: ServingSettings) -> None:
    """As `check_request`, as far as it can be told without the servers."""
    if not request.task:
        raise BadRequest("task", f"expected one of {', '.join(TASKS)}, got none")
    check_texts(request, settings)
    _check_files(request)
    for video in request.videos:
        frames = round(len(video.frames) * request.fps / video.fps)
        if frames > settings.max_frames_read:
            most = f"{settings.max_frames_read} frames at {request.fps:g} a second"
            raise BadRequest("video", f"expected at most {most}, got {frames}; cut the video")


def check_texts(request: TaskRequest, settings: ServingSettings) -> None:
    """As `check_fields`, as far as it can be told without the files; a task that is not named follows from them."""
    if request.task and request.task not in TASKS:
        raise BadRequest("task", f"expected one of {', '.join(TASKS)}, got {request.task[:40]}")
    check_prompt(request.prompt, settings)
    check_seed(request.seed)
    check_fps(request.fps)
    if request.seconds is not None and not 0 < request.seconds <= settings.max_seconds:
        raise BadRequest("seconds", f"expected over 0 to {settings.max_seconds:g}, got {request.seconds:g}")
    if request.strength is not None and not 0 < request.strength <= 1:
        raise BadRequest("strength", f"expected over 0 to 1, got {request.strength:g}")


def _check_files(request: TaskRequest) -> None:
    """All that the task needs, and nothing that it would leave out of account."""
    if (request.image is not None) != (request.task in NEEDS_IMAGE):
        takes = "needs a picture" if request.image is None else f"takes no picture; {', '.join(NEEDS_IMAGE)} does"
        raise BadRequest("image", f"{request.task} {takes}")
    wanted, count = NUM_VIDEOS.get(request.task, 0), len(request.videos)
    if count < wanted:
        raise BadRequest("video", f"{request.task} needs {wanted} video(s), got {count}")
    most = wanted + OPTIONAL_VIDEOS.get(request.task, 0)
    if count > most:
        raise BadRequest("video", f"{request.task} takes {most or 'no'} video(s), got {count}")


def check_prompt(prompt: object, settings: ServingSettings) -> str:
    """The prompt, which must say something and not too much."""
    if not isinstance(prompt, str) or not prompt.strip():
        raise BadRequest("prompt", "expected some text, got none; describe what should be seen")
    if len(prompt) > settings.max_prompt_length:
        raise BadRequest("prompt", f"expected at most {settings.max_prompt_length} characters, got {len(prompt)}")
    try:
        prompt.encode()
    except UnicodeEncodeError:
        raise BadRequest("prompt", "expected text that is valid Unicode") from None
    return prompt


def check_fps(fps: float) -> float:
    """0.1 to 120."""
    if not 0.1 <= fps <= 120:
        raise BadRequest("fps", f"expected 0.1 to 120, got {fps:g}")
    return fps


def check_seed(seed: int) -> int:
    """0 to 2^31 - 1."""
    if not 0 <= seed <= MAX_SEED:
        raise BadRequest("seed", f"expected 0 to {MAX_SEED}, got {seed}")
    return seed


def check_sampling(steps: int | None, guidance: float | None, about: dict[str, Any]) -> None:
    """Steps between the sampler's least and 1000, guidance from 0 to 50."""
    least = about["least_num_inference_steps"]
    if steps is not None and not least <= steps <= 1000:
        raise BadRequest("num_inference_steps", f"expected {least} to 1000, got {steps}")
    if guidance is not None and not 0 <= guidance <= 50:
        raise BadRequest("guidance_scale", f"expected 0 to 50, got {guidance}")


def check_size(size: str | None, about: dict[str, Any], settings: ServingSettings) -> tuple[int, int]:
    """(height, width) of `WIDTHxHEIGHT`; the agent's own where none is asked for."""
    own = f"{about['width']}x{about['height']}"
    if size in (None, "auto", own):
        return about["height"], about["width"]
    allowed = (own, *settings.sizes)
    if size not in allowed or not re.fullmatch(r"\d{1,5}x\d{1,5}", size or ""):
        raise BadRequest("size", f"expected one of {', '.join(allowed)}, got {str(size)[:40]}")
    width, height = map(int, str(size).split("x"))
    return height, width
