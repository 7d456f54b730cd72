"""Files of a request: reads them and has them decoded, until the client disconnects."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence

from fastapi import Request
from fastapi.concurrency import run_in_threadpool

from mora_launch.decoding.job import Decoded, DecodeJob
from mora_launch.serving.http.front import Front
from mora_launch.serving.http.requests.fields import RequestFields
from mora_launch.serving.http.requests.request_terms import tenant_of
from mora_launch.serving.http.waiting import while_connected
from mora_launch.tasks.errors import BadRequest
from mora_launch.tasks.inputs import Inputs, as_inputs, input_jobs


async def decoded(
    request: Request, front: Front, contents: Sequence[bytes], field: str, size: tuple[int, int]
) -> Inputs:
    """Decode files; return the picture, if any, and the videos.

    Args:
        size: (height, width) of the result.

    Raises:
        BadRequest: for `field`. TooBusy. Cancelled: the client has disconnected; its decoders are killed.
    """
    if not contents:
        return None, ()

    def jobs() -> Sequence[DecodeJob]:
        return input_jobs(contents, field, front.config.serving, size)

    return as_inputs(await decoded_jobs(request, front, jobs))


async def decoded_jobs(request: Request, front: Front, make: Callable[[], Sequence[DecodeJob]]) -> list[Decoded]:
    """Run decoding jobs; return their results in order.

    Args:
        make: makes the jobs, in a thread.

    Raises:
        BadRequest, TooBusy, Cancelled: as for `decoded`.
    """
    tenant = tenant_of(request)
    front.uploads.enter(tenant)
    jobs: Sequence[DecodeJob] = []
    try:
        jobs = await run_in_threadpool(make)
        nbytes = sum(job.most_nbytes for job in jobs)
        with front.pool.counters.timing("read"), front.decoding.held(nbytes, tenant):
            for job in jobs:
                front.decoders.submit(job, tenant)
            return await while_connected(request, [job.future for job in jobs])
    finally:
        for job in jobs:
            job.cancel()
        front.uploads.leave(tenant)


async def sent_files(fields: RequestFields, field: str) -> list[bytes]:
    """Return the pictures and videos of a request, from files or one data: URL; other URLs and paths are refused."""
    contents = list(fields.files.get(field, []))
    text = None if contents else fields.text(field)
    return contents if text is None else [await data_url_content(field, text)]


async def data_url_content(field: str, text: str, expected: str = "a file, or a data: URL in base64") -> bytes:
    """Return the content of a data: URL.

    Args:
        expected: what the field takes, for the message.

    Raises:
        BadRequest: it is another URL, or a path, or no base64.
    """
    return await run_in_threadpool(_from_data_url, field, text, expected)


def _from_data_url(field: str, text: str, expected: str) -> bytes:
    head, comma, data = text.partition(",")
    if not (head.startswith("data:") and head.endswith(";base64") and comma):
        raise BadRequest(field, f"expected {expected}; other URLs and paths are refused")
    try:
        return base64.b64decode(data, validate=True)
    except (ValueError, binascii.Error):
        raise BadRequest(field, "is not valid base64") from None
