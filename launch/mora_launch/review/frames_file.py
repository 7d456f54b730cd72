"""Frames of a candidate on disk, in numpy's format. The folder may be a stranger's: what is read is what is there.

Used by `ReviewSession`. numpy alone would take a header at its word and allocate what it claims.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from mora_runtime.errors import SettingsError
from mora_runtime.foreign_file import open_foreign
from mora_runtime.fresh_file import fresh_file

from mora_launch.tasks.media import Clip

MAX_NBYTES = 2 << 30
_MAX_HEADER_NBYTES = 4096


def write_frames(path: Path, frames: Clip) -> None:
    """Write a picture (height, width, 3) or a clip (frames, height, width, 3), uint8."""
    with fresh_file(path) as file:
        np.save(file, frames, allow_pickle=False)


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
            if count != found or count > MAX_NBYTES:
                raise ValueError(f"its header claims {count} bytes of at most {MAX_NBYTES}, and {found} are there")
            frames: Clip = np.fromfile(file, dtype=np.uint8, count=count)
            return frames.reshape(shape)
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, TypeError, OverflowError, SyntaxError, RecursionError, MemoryError) as error:
        why = " ".join(str(error).split())[:200] or type(error).__name__
        raise SettingsError(f"{path}: expected frames that a review has written: {ascii(why)[1:-1]}") from None


def _shape(file: BinaryIO) -> tuple[int, ...]:
    readers: dict[tuple[int, int], Any] = {
        (1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0,
    }  # fmt: skip
    version = np.lib.format.read_magic(file)
    if version not in readers:
        raise ValueError(f"of a version {version[0]}.{version[1]} that is not written here")
    start = file.tell()
    length = int.from_bytes(file.read(2 if version == (1, 0) else 4), "little")
    if length > _MAX_HEADER_NBYTES:
        raise ValueError(f"its header claims {length} bytes of at most {_MAX_HEADER_NBYTES}")
    file.seek(start)
    shape, is_fortran, dtype = readers[version](file, max_header_size=_MAX_HEADER_NBYTES)
    if dtype != np.uint8 or is_fortran or len(shape) not in (3, 4) or shape[-1] != 3:
        raise ValueError(f"of dtype {dtype} and {len(shape)} dimensions, expected uint8 and three or four, RGB last")
    if not all(type(each) is int and each > 0 for each in shape):
        raise ValueError("its shape holds something else than sizes")
    return tuple(shape)
