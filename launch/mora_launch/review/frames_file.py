"""Frames of a candidate on disk, in numpy's format. Used by `ReviewSession`.

The folder may come from a stranger, and numpy would allocate whatever size a header claims. Therefore the header is
compared with the size of the file before anything is read.
"""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import BinaryIO

import numpy as np
from mora_data.reading.fitting import Clip
from mora_runtime.errors import SettingsError
from mora_runtime.files.foreign_file import open_foreign
from mora_runtime.files.fresh_file import fresh_file

from mora_launch.limits import MAX_FRAMES_FILE_NBYTES, MAX_FRAMES_HEADER_NBYTES

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
    """Read a picture or clip.

    Raises:
        SettingsError: it is not a regular file, or does not contain exactly a uint8 array of three or four dimensions.
    """
    try:
        with open(open_foreign(path, follow_links=False), "rb") as file:
            shape = _shape(file)
            count = math.prod(shape)
            found = os.fstat(file.fileno()).st_size - file.tell()
            if count != found or count > MAX_FRAMES_FILE_NBYTES:
                most = f"at most {MAX_FRAMES_FILE_NBYTES}"
                raise ValueError(f"expected the {count} bytes that its header claims, {most}, got {found}")
            frames: Clip = np.fromfile(file, dtype=np.uint8, count=count)
            return frames.reshape(shape)
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise SettingsError(f"{path}: expected frames that a review has written: {error}") from None


def _shape(file: BinaryIO) -> tuple[int, ...]:
    """Read the shape from a header exactly as numpy writes it for frames; refuse everything else that numpy reads."""
    found = _HEADER.match(file.read(MAX_FRAMES_HEADER_NBYTES))
    if found is None or int.from_bytes(found[1], "little") != len(found[2]):
        raise ValueError("its header is not that of a uint8 picture or clip")
    file.seek(found.end())
    shape = tuple(int(each) for each in found[3].split(b", "))
    if len(shape) not in (3, 4) or shape[-1] != 3 or not all(shape):
        raise ValueError(f"its shape is {shape}, expected three or four sizes, the last 3")
    return shape
