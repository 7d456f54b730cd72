"""Frames of a candidate on disk, in numpy's format. The folder may be a stranger's: what is read is what is there.

Used by `ReviewSession`. numpy alone would take a header at its word and allocate what it claims.
"""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import BinaryIO

import numpy as np
from mora_runtime.errors import SettingsError
from mora_runtime.files.foreign_file import open_foreign
from mora_runtime.files.fresh_file import fresh_file

from mora_launch.limits import MAX_FRAMES_FILE_NBYTES, MAX_FRAMES_HEADER_NBYTES
from mora_launch.tasks.media import Clip

_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00(..)"
    rb"(\{'descr': '\|u1', 'fortran_order': False, 'shape': \(([0-9]{1,9}(?:, [0-9]{1,9}){2,3})\), \} *\n)",
    re.DOTALL,
)


def write_frames(path: Path, frames: Clip) -> None:
    """Write a picture (height, width, 3) or a clip (frames, height, width, 3), uint8."""
    with fresh_file(path) as file:
        np.save(file, np.ascontiguousarray(frames), allow_pickle=False)


def read_frames(path: Path) -> Clip:
    """A picture or clip.

    Raises:
        SettingsError: it is no regular file, or holds anything but uint8 of three or four dimensions, exactly.
    """
    try:
        with open(open_foreign(path, follow_links=False), "rb") as file:
            shape = _shape(file)
            count = math.prod(shape)
            found = os.fstat(file.fileno()).st_size - file.tell()
            if count != found or count > MAX_FRAMES_FILE_NBYTES:
                raise ValueError(f"its header claims {count} bytes of {MAX_FRAMES_FILE_NBYTES} at most; it has {found}")
            frames: Clip = np.fromfile(file, dtype=np.uint8, count=count)
            return frames.reshape(shape)
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise SettingsError(f"{path}: expected frames that a review has written: {error}") from None


def _shape(file: BinaryIO) -> tuple[int, ...]:
    """What numpy writes for such frames, and nothing else that it would read."""
    found = _HEADER.match(file.read(MAX_FRAMES_HEADER_NBYTES))
    if found is None or int.from_bytes(found[1], "little") != len(found[2]):
        raise ValueError("its header is none of uint8 pictures or clips")
    file.seek(found.end())
    shape = tuple(int(each) for each in found[3].split(b", "))
    if len(shape) not in (3, 4) or shape[-1] != 3 or not all(shape):
        raise ValueError(f"its shape is {shape}, expected three or four sizes, the last 3")
    return shape
