"""The request of a task and its checks, shared by command line, HTTP and page."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from mora_data.reading.fitting import Clip
from mora_data.reading.timeline import Video, num_frames_at
from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from mora_launch.limits import MAX_FPS, MAX_NUM_STEPS, MAX_SEED
from mora_launch.serving.server_pool import ServerPool
from mora_launch.serving.settings import ServingSettings
from mora_launch.tasks.catalog import TASKS, called, takes_strength
from mora_launch.tasks.errors import BadRequest


def _known_task(name: str) -> str:
    if name not in TASKS:
        raise PydanticCustomError("task", "Input should be one of {names}", {"names": ", ".join(TASKS)})
    return name


FRAME_TOLERANCE = 0.01  # of a frame: a length such as 0.333333 s is one frame at 3 a second
_SIZE = re.compile(r"[1-9]\d{0,4}x[1-9]\d{0,4}", re.ASCII)
TaskName = Annotated[str, AfterValidator(_known_task)]


@dataclass(frozen=True)
class TaskRequest:
    """One run of a task.

    Attributes:
        seconds: requested length of the generated part; None = one clip of the model.
        fps: frames per second of the model's clips and of the result.
        negative_prompt: what the result should not show; None = the agents' own.
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
    negative_prompt: str | None = None

    @property
    def nbytes(self) -> int:
        """Size of its decoded picture and videos."""
        image_nbytes = 0 if self.image is None else self.image.nbytes
        return image_nbytes + sum(video.frames.nbytes for video in self.videos)

    @property
    def loses_sound(self) -> bool:
        """Whether a given video has sound, which the result does not have."""
        return any(video.has_sound for video in self.videos)

    @property
    def notes(self) -> list[str]:
        """What the user should know about the given videos."""
        broken = [f"video {number}: {video.note}" for number, video in enumerate(self.videos, 1) if video.note]
        sound = ["the sound of the given video is left out"] if self.loses_sound else []
        return [*(f"{note}; the frames before are used" for note in broken), *sound]

    def sampling(self) -> dict[str, Any]:
        """Return the sampling settings, which all stages share."""
        return sampling(self.num_inference_steps, self.guidance_scale, self.negative_prompt)


def sampling(steps: int | None, guidance: float | None, negative_prompt: str | None) -> dict[str, Any]:
    """Return the arguments of a capability that say how to sample. An agent that takes no negative prompt gets none."""
    negative = {} if negative_prompt is None else {"negative_prompt": negative_prompt}
    return {"num_inference_steps": steps, "guidance_scale": guidance, **negative}


def check_request(request: TaskRequest, pool: ServerPool, settings: ServingSettings) -> None:
    """Refuse an invalid request before anything runs. Raises: BadRequest: names the field and its limit."""
    check_fields(request, settings)
    check_sampling(request.num_inference_steps, request.guidance_scale, pool.describe("image_to_video"))
    if request.negative_prompt is not None:
        known = pool.capabilities()
        for capability in set(called(TASKS[request.task], known)).intersection(known):
            check_negative_prompt(request.negative_prompt, request.guidance_scale, pool.describe(capability), settings)


def check_fields(request: TaskRequest, settings: ServingSettings) -> None:
    """Make the checks of `check_request` that need no servers."""
    if not request.task:
        raise BadRequest("task", f"expected one of {', '.join(TASKS)}, got none")
    check_texts(request, settings)
    _check_files(request)
    for video in request.videos:
        frames = num_frames_at(video, request.fps)
        if frames > settings.max_frames_read:
            most = f"{settings.max_frames_read} frames at {request.fps:g} a second"
            raise BadRequest("video", f"expected at most {most}, got {frames}; cut the video")


def check_texts(request: TaskRequest, settings: ServingSettings) -> None:
    """Make the checks of `check_fields` that need no files. The task may be empty: it then depends on the files."""
    if request.task and request.task not in TASKS:
        raise BadRequest("task", f"expected one of {', '.join(TASKS)}, got {request.task[:40]}")
    check_prompt(request.prompt, settings)
    check_seed(request.seed)
    check_fps(request.fps)
    if request.seconds is not None:
        check_seconds(request.seconds, request.fps, settings)
    if request.strength is not None and not 0 < request.strength <= 1:
        raise BadRequest("strength", f"expected more than 0, at most 1, got {request.strength:g}")


def check_strength(strength: float | None, task: str, pool: ServerPool) -> None:
    """Refuse a strength that the request gives and no agent takes.

    Args:
        strength: None if the request gives none.
        task: may be empty: such a task depends on the files, and uses none.
    """
    if strength is not None and task in TASKS and "strength" in TASKS[task].fields:
        check_editor_strength(strength, pool)


def check_editor_strength(strength: float | None, pool: ServerPool) -> None:
    """Check a strength for the agent that changes pictures, if one is given."""
    if strength is None:
        return
    if not takes_strength(pool.capabilities()):
        name = pool.describe("edit_image")["agent"]
        raise BadRequest("strength", f"the agent {name} takes none, it follows the instruction; leave strength out")
    if not 0 < strength <= 1:
        raise BadRequest("strength", f"expected more than 0, at most 1, got {strength:g}")


def _check_files(request: TaskRequest) -> None:
    """Check that the request has every file that the task needs, and no file or length that the task would ignore."""
    task = TASKS[request.task]
    if request.seconds is not None and "seconds" not in task.fields:
        raise BadRequest("seconds", f"{request.task} takes none; its videos say how long the result is")
    if (request.image is not None) != task.needs_image:
        others = ", ".join(name for name, other in TASKS.items() if other.needs_image)
        takes = "needs a picture" if request.image is None else f"takes no picture; {others} does"
        raise BadRequest("image", f"{request.task} {takes}")
    count = len(request.videos)
    if count < task.num_videos:
        raise BadRequest("video", f"{request.task} needs {task.num_videos} video(s), got {count}")
    most = task.num_videos + task.num_optional_videos
    if count > most:
        raise BadRequest("video", f"{request.task} takes {most or 'no'} video(s), got {count}")


def check_prompt(prompt: object, settings: ServingSettings, result: str = "video") -> str:
    """Return the prompt if it is a non-empty text of allowed length.

    Args:
        result: what it describes, for the message.
    """
    if not isinstance(prompt, str) or not prompt.strip():
        raise BadRequest("prompt", f"expected a text, got none; describe what the {result} shows")
    _check_text("prompt", prompt, settings)
    return prompt


def _check_text(field: str, text: str, settings: ServingSettings) -> None:
    if len(text) > settings.max_prompt_length:
        raise BadRequest(field, f"expected at most {settings.max_prompt_length} characters, got {len(text)}")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadRequest(field, "expected text that is valid Unicode") from None


def check_negative_prompt(
    negative_prompt: str | None, guidance: float | None, about: dict[str, Any], settings: ServingSettings
) -> None:
    """Check that an agent follows the negative prompt, if there is one.

    Args:
        guidance: that of the request; None = the agent's own.
        about: the agent's description.
    """
    if negative_prompt is None:
        return
    _check_text("negative_prompt", negative_prompt, settings)
    if not about.get("takes_negative_prompt", False):
        raise BadRequest("negative_prompt", f"the agent {about['agent']} takes none; say in the prompt what is shown")
    scale = about["guidance_scale"] if guidance is None else guidance
    if scale <= 1 and negative_prompt:
        text = f"has no effect at guidance_scale {scale:g} of the agent {about['agent']}; give one above 1"
        raise BadRequest("negative_prompt", text)


def check_seconds(seconds: float, fps: float, settings: ServingSettings) -> float:
    """Return a length that is a whole number of frames, at least two, and not too long."""
    if not 0 < seconds <= settings.max_seconds:
        raise BadRequest("seconds", f"expected more than 0, at most {settings.max_seconds:g}, got {seconds:g}")
    frames = seconds * fps
    if frames < 2 - FRAME_TOLERANCE:
        raise BadRequest("seconds", f"expected at least two frames, {2 / fps:g} at {fps:g} a second, got {seconds:g}")
    if abs(frames - round(frames)) > FRAME_TOLERANCE:
        shorter, longer = math.floor(frames) / fps, math.ceil(frames) / fps
        text = f"the nearest lengths are {shorter:g} and {longer:g}, got {seconds:g}"
        raise BadRequest("seconds", f"expected whole frames at {fps:g} a second; {text}")
    return seconds


def check_fps(fps: float) -> float:
    """Return the rate if it is 0.1 to 120 frames per second."""
    if not 0.1 <= fps <= MAX_FPS:
        raise BadRequest("fps", f"expected 0.1 to {MAX_FPS:g}, got {fps:g}")
    return fps


def check_seed(seed: int) -> int:
    """Return the seed if it is 0 to 2^31 - 1."""
    if not 0 <= seed <= MAX_SEED:
        raise BadRequest("seed", f"expected 0 to {MAX_SEED}, got {seed}")
    return seed


def check_sampling(steps: int | None, guidance: float | None, about: dict[str, Any]) -> None:
    """Check that steps are between the sampler's minimum and 1000, and guidance between 0 and 50."""
    least = about["least_num_inference_steps"]
    if steps is not None and not least <= steps <= MAX_NUM_STEPS:
        raise BadRequest("num_inference_steps", f"expected {least} to {MAX_NUM_STEPS}, got {steps}")
    if guidance is not None and not 0 <= guidance <= 50:
        raise BadRequest("guidance_scale", f"expected 0 to 50, got {guidance}")


def check_size(
    size: str | None, about: dict[str, Any], settings: ServingSettings, *, is_drawn: bool = False
) -> tuple[int, int]:
    """Parse `WIDTHxHEIGHT` to (height, width); the agent's default if not given.

    Args:
        is_drawn: the agent itself makes pictures of this size; otherwise its frames are resized.
    """
    own = f"{about['width']}x{about['height']}"
    if size in (None, "auto", own):
        return about["height"], about["width"]
    allowed = drawn_sizes(about, settings) if is_drawn else [own, *settings.sizes]
    if size not in allowed or not _SIZE.fullmatch(size or ""):
        nearest = _nearest(str(size), allowed)
        raise BadRequest("size", f"expected one of {', '.join(allowed)}, got {str(size)[:40]}{nearest}")
    return _height_and_width(str(size))


def drawn_sizes(about: dict[str, Any], settings: ServingSettings) -> list[str]:
    """Return the sizes in which an agent can make pictures, its own first."""
    own = f"{about['width']}x{about['height']}"
    return [own, *(each for each in settings.sizes if _can_draw(each, about))]


def _can_draw(size: str, about: dict[str, Any]) -> bool:
    multiple = about.get("size_multiple", 1)
    return bool(_SIZE.fullmatch(size)) and all(side % multiple == 0 for side in _height_and_width(size))


def _nearest(size: str, allowed: Sequence[str]) -> str:
    """Name the size that is nearest to the one that was asked for, if that is a size."""
    known = [each for each in allowed if _SIZE.fullmatch(each)]
    if not _SIZE.fullmatch(size) or not known:
        return ""
    height, width = _height_and_width(size)

    def distance(other: str) -> int:
        other_height, other_width = _height_and_width(other)
        return abs(other_height - height) + abs(other_width - width)

    return f"; the nearest is {min(known, key=distance)}"


def _height_and_width(size: str) -> tuple[int, int]:
    width, height = map(int, size.split("x"))
    return height, width
