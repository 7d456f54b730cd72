"""Pictures and videos that come with a request as bytes, told apart by their content."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout

from mora_runtime.errors import Cancelled

from mora_launch.decoding.clip import Clip, Video
from mora_launch.decoding.job import Decoded, DecodeJob, decode_job
from mora_launch.decoding.pool import DecodePool
from mora_launch.serving.settings import ServingSettings
from mora_launch.tasks.errors import BadRequest

_TICK_S = 0.1
Inputs = tuple[Clip | None, tuple[Video, ...]]


def input_jobs(
    contents: Sequence[bytes], field: str, settings: ServingSettings, size: tuple[int, int]
) -> list[DecodeJob]:
    """What decoding some files takes.

    Args:
        size: (height, width) that every frame is brought to, so that large ones are never in memory together.

    Raises:
        BadRequest: naming `field`: one is something else or too large, or there are two pictures.
    """
    for content in contents:
        if len(content) > settings.max_upload_nbytes:
            raise BadRequest(field, f"expected at most {settings.max_upload_nbytes} bytes, got {len(content)}")
    jobs = [decode_job(content, field, size=size, max_frames=settings.max_frames_read) for content in contents]
    if sum(job.kind == "picture" for job in jobs) > 1:
        raise BadRequest(field, "expected one picture at most, got another")
    return jobs


def as_inputs(decoded: Sequence[Decoded]) -> Inputs:
    """The picture and the videos among decoded files."""
    videos = tuple(each for each in decoded if isinstance(each, Video))
    pictures = [each for each in decoded if not isinstance(each, Video)]
    return (pictures[0] if pictures else None), videos


def decoded_now(decoders: DecodePool, jobs: Sequence[DecodeJob], is_cancelled: Callable[[], bool]) -> Inputs:
    """Decode and wait. Raises: BadRequest: a file cannot be decoded. Cancelled: it is not wanted any more."""
    try:
        for job in jobs:
            decoders.submit(job)
        return as_inputs([_result(job.future, is_cancelled) for job in jobs])
    finally:
        for job in jobs:
            job.cancel()


def _result(future: Future[Decoded], is_cancelled: Callable[[], bool]) -> Decoded:
    while True:
        try:
            return future.result(_TICK_S)
        except FutureTimeout:
            if is_cancelled():
                raise Cancelled("the task was cancelled") from None
