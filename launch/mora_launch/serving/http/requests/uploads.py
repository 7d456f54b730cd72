"""Files that come with a request, from bytes to frames: decoded by the decoders, as long as the client waits for it."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence

from fastapi import Request
from fastapi.concurrency import run_in_threadpool

from mora_launch.serving.http.front import Front
from mora_launch.serving.http.requests.fields import RequestFields
from mora_launch.serving.http.waiting import while_connected
from mora_launch.tasks.errors import BadRequest
from mora_launch.tasks.inputs import Inputs, as_inputs, input_jobs


async def decoded(
    request: Request, front: Front, contents: Sequence[bytes], field: str, size: tuple[int, int]
) -> Inputs:
    """The picture and the videos among some files; a request without any waits for nothing.

    Args:
        size: (height, width) that they are brought to.

    Raises:
        BadRequest: naming `field`. TooBusy. Cancelled: the client has gone; decoders that work for it are killed.
    """
    if not contents:
        return None, ()
    front.uploads.enter()
    jobs = []
    try:
        jobs = await run_in_threadpool(input_jobs, contents, field, front.config.serving, size)
        with front.decoding.held(sum(job.most_nbytes for job in jobs)):
            for job in jobs:
                front.decoders.submit(job)
            return as_inputs(await while_connected(request, [job.future for job in jobs]))
    finally:
        for job in jobs:
            job.cancel()
        front.uploads.leave()


async def sent_files(fields: RequestFields, field: str) -> list[bytes]:
    """Pictures and videos that were sent, as files or as one data: URL; an address or a path is refused."""
    contents = list(fields.files.get(field, []))
    text = None if contents else fields.text(field)
    return contents if text is None else [await run_in_threadpool(_from_data_url, field, text)]


def _from_data_url(field: str, text: str) -> bytes:
    head, comma, data = text.partition(",")
    if not (head.startswith("data:") and head.endswith(";base64") and comma):
        raise BadRequest(field, "expected a file, or a data: URL in base64; addresses and paths are not opened")
    try:
        return base64.b64decode(data, validate=True)
    except (ValueError, binascii.Error):
        raise BadRequest(field, "is not valid base64") from None
