"""A decoder process: `python -m mora_launch.decoding.worker DESCRIPTOR`.

It reads orders from the socket that it was started with, until end-of-file. It has no network, few environment
variables, little memory and a low priority. It is killed when a job takes too long or its client disconnects.
"""

from __future__ import annotations

import ctypes
import os
import resource
import socket
import sys

import numpy as np
from mora_runtime.process.supervisor_link import die_with_parent

from mora_launch.decoding import wire
from mora_launch.decoding.picture import read_picture
from mora_launch.decoding.video import SERVED, DecodedVideo, decode_frames
from mora_launch.limits import DECODER_MEMORY_NBYTES, MAX_NUM_DECODER_FILES
from mora_launch.tasks.errors import BadRequest

_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_PR_SET_NO_NEW_PRIVS = 38
_NICENESS = 10


def main() -> None:
    """Serve orders until the front closes the socket."""
    _confine()
    link = socket.socket(fileno=int(sys.argv[1]))
    while True:
        try:
            content, handles = wire.receive(link)
        except EOFError:
            return
        order = wire.Order.model_validate(content)
        with open(handles[0], "rb") as file:
            file.seek(0)
            answer, frames = _decoded(order, file.read())
        wire.send(link, answer, frames)
        if frames is not None:
            os.close(frames)


def _confine() -> None:
    """Drop every right that decoding does not need. If the kernel refuses one step, the others still protect."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    die_with_parent()
    os.nice(_NICENESS)
    with open("/proc/self/statm", encoding="ascii") as file:
        own_nbytes = int(file.read().split()[0]) * resource.getpagesize()
    most = own_nbytes + DECODER_MEMORY_NBYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (MAX_NUM_DECODER_FILES, MAX_NUM_DECODER_FILES))


def _decoded(order: wire.Order, content: bytes) -> tuple[wire.DecodeAnswer, int | None]:
    try:
        if order.kind == "picture":
            found = DecodedVideo([read_picture(content, order.whose, order.size)], fps=1.0)
        else:
            found = decode_frames(content, order.whose, max_frames=order.max_frames, size=order.size, budget=SERVED)
        parts = [np.ascontiguousarray(frame).data for frame in found.frames]
        starts = np.asarray(found.starts_s, dtype=np.float64)
        handle = wire.sealed_file("frames", [*parts, starts.data] if len(starts) else parts)
        height, width = found.frames[0].shape[:2]
        answer = wire.DecodeAnswer(
            num_frames=len(found.frames), height=height, width=width, fps=found.fps, num_starts=len(starts),
            has_sound=found.has_sound, note=found.note[:2000],
        )  # fmt: skip
        return answer, handle
    except BadRequest as error:
        return wire.DecodeAnswer(refused=str(error)[:2000]), None
    except MemoryError:
        return wire.DecodeAnswer(
            refused=f"{order.whose}: needs more memory than decoding may use; make it smaller"
        ), None
    except Exception as error:
        # the boundary of a decoder: any error of its libraries is blamed on the untrusted content
        return wire.DecodeAnswer(refused=f"{order.whose}: cannot be decoded ({type(error).__name__})"), None


if __name__ == "__main__":
    main()
