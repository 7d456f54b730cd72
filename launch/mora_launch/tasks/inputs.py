"""Pictures and videos of a request, sent as bytes and distinguished by their content."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout

from mora_data.reading.fitting import Clip
from mora_data.reading.timeline import Video
from mora_runtime.errors import Cancelled

from mora_launch.decoding.job import Decoded, DecodeJob, decode_job
from mora_launch.decoding.pool import DecodePool
from mora_launch.serving.settings import ServingSettings
from mora_launch.tasks.errors import BadRequest

_TICK_S = 0.1
Inputs = tuple[Clip | None, tuple[Video, ...]]


def input_jobs(
    contents: Sequence[bytes], field: str, settings: ServingSettings, size: tuple[int, int]
) -> list[DecodeJob]:
    """Return a decoding job for each file.

    Args:
        size: (height, width) to which every frame is resized at once, so that large frames do not fill the memory.

    Raises:
        BadRequest: for `field`: a file has an unknown format or is too large, or there are two pictures.
    """
    for content in contents:
        if len(content) > settings.max_upload_nbytes:
            raise BadRequest(field, f"expected at most {settings.max_upload_nbytes} bytes, got {len(content)}")
    jobs = [decode_job(content, field, size=size, max_frames=settings.max_frames_read) for content in contents]
    if sum(job.kind == "picture" for job in jobs) > 1:
        raise BadRequest(field, "expected at most one picture, got more")
    return jobs


def as_inputs(decoded: Sequence[Decoded]) -> Inputs:
    """Split decoded files into the picture, if any, and the videos."""
    videos = tuple(each for each in decoded if isinstance(each, Video))
    pictures = [each for each in decoded if not isinstance(each, Video)]
    return (pictures[0] if pictures else None), videos


def decoded_now(
    decoders: DecodePool, jobs: Sequence[DecodeJob], tenant: str, is_cancelled: Callable[[], bool]
) -> Inputs:
    """Decode files on behalf of a tenant and wait.

    Raises:
        BadRequest: a file cannot be decoded.
        Cancelled: `is_cancelled` became true.
    """
    try:
        for job in jobs:
            decoders.submit(job, tenant)
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
