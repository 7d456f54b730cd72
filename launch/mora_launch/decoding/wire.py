"""Messages between the front and a decoder: one packet per job, one packet back, content and frames in sealed memory
files. A file may have taken over its decoder, so the decoder's answers are checked like a stranger's."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from mora_data.reading.fitting import Clip
from mora_data.reading.timeline import Video
from mora_runtime.schema import Settings
from pydantic import Field

from mora_launch.decoding.job import Decoded
from mora_launch.limits import MAX_CLIP_NBYTES, MAX_PACKET_NBYTES, MAX_SIDE

_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL


class Order(Settings):
    """Sent to a decoder, with the memory file of the content."""

    kind: Literal["picture", "video"]
    whose: str
    size: tuple[int, int]
    max_frames: int


class DecodeAnswer(Settings):
    """Sent by a decoder, with the memory file of the frames, if any."""

    refused: str | None = Field(default=None, max_length=4000)
    num_frames: int = Field(default=0, ge=0, le=1_000_000)
    height: int = Field(default=0, ge=0, le=MAX_SIDE)
    width: int = Field(default=0, ge=0, le=MAX_SIDE)
    fps: float = Field(default=1.0, gt=0.0, le=1e6, allow_inf_nan=False)
    num_starts: int = Field(default=0, ge=0, le=1_000_000)  # times of frames, after the frames in the file
    has_sound: bool = False
    note: str = Field(default="", max_length=2000)


def sealed_file(name: str, parts: Sequence[bytes | memoryview]) -> int:
    """Create a memory file from parts and seal it against changes; the caller closes the descriptor."""
    handle = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        for part in parts:
            left = memoryview(part).cast("B")
            while left:
                left = left[os.write(handle, left) :]
        fcntl.fcntl(handle, fcntl.F_ADD_SEALS, _SEALS)
    except BaseException:
        os.close(handle)
        raise
    return handle


def send(link: socket.socket, message: Settings, handle: int | None) -> None:
    """Send one packet. Raises: OSError: the other side has closed the socket."""
    handles = [] if handle is None else [handle]
    socket.send_fds(link, [message.model_dump_json().encode()], handles, socket.MSG_NOSIGNAL)


def receive(link: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Receive a packet and its descriptors, which the caller closes. Raises: EOFError. ValueError: not an object."""
    data, handles, flags, _ = socket.recv_fds(link, MAX_PACKET_NBYTES, 1, socket.MSG_CMSG_CLOEXEC)
    try:
        if not data:
            raise EOFError("the other side has closed the socket")
        content = json.loads(data) if not flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC) else None
        if not isinstance(content, dict):
            raise ValueError("expected one JSON object in a packet")
    except BaseException:
        for handle in handles:
            os.close(handle)
        raise
    return content, list(handles)


def frames_of(answer: DecodeAnswer, handle: int, kind: str) -> Decoded:
    """Copy the frames of an answer out of its memory file. Raises: ValueError: the file does not match the answer."""
    shape = (answer.num_frames, answer.height, answer.width, 3)
    if answer.num_starts not in (0, answer.num_frames):
        raise ValueError(f"expected a time for each of {answer.num_frames} frames, got {answer.num_starts}")
    starts = np.empty(answer.num_starts, dtype=np.float64)
    nbytes = int(np.prod(shape, dtype=np.int64)) + starts.nbytes
    if fcntl.fcntl(handle, fcntl.F_GET_SEALS) & _SEALS != _SEALS:
        raise ValueError("expected a sealed memory file of frames, got one that can still change")
    if not 0 < nbytes == os.fstat(handle).st_size <= MAX_CLIP_NBYTES:
        raise ValueError(f"expected {nbytes} bytes of frames, got {os.fstat(handle).st_size}")
    frames: Clip = np.empty(shape, dtype=np.uint8)
    with open(handle, "rb", buffering=0, closefd=False) as file:
        file.seek(0)  # the position is shared with the writer, which left it at the end
        for part in (frames, starts):
            left = part.data.cast("B") if part.nbytes else memoryview(b"")
            while left:
                num_read = file.readinto(left)
                if not num_read:
                    raise ValueError("the frames end too early")
                left = left[num_read:]
    if kind == "picture":
        picture: Clip = frames[0]
        return picture
    return Video(frames, answer.fps, _checked(starts), answer.has_sound, answer.note)


def _checked(starts: npt.NDArray[np.float64]) -> tuple[float, ...]:
    """The times of frames. Raises: ValueError: they do not begin at 0, do not grow, or are not finite."""
    if len(starts) and not (starts[0] == 0.0 and np.isfinite(starts).all() and (np.diff(starts) > 0).all()):
        raise ValueError("expected times of frames that begin at 0 and grow")
    return tuple(starts.tolist())
