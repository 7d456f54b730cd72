"""Opens a video of any kind."""

from __future__ import annotations

from typing import BinaryIO

from mora_data.reading.animation import Animation
from mora_data.reading.costs import AnimationLimits, Costs, Unlimited
from mora_data.reading.file_kind import HEAD_NBYTES, VIDEOS, kind_of
from mora_data.reading.film import Film
from mora_data.reading.unreadable import Unreadable

Moving = Film | Animation


def opened_video(file: BinaryIO, costs: Costs | None = None) -> Moving:
    """Open a video for reading: a context manager, which leaves the file itself open.

    Args:
        file: seekable.
        costs: is told of what decoding costs; by default only animated pictures are limited.

    Raises:
        Unreadable: another kind of file, named, or a broken one.
    """
    file.seek(0)
    kind = kind_of(file.read(HEAD_NBYTES))
    if kind.media != "video":
        raise Unreadable(f"is {kind}; expected an {VIDEOS}")
    opener = Animation if kind.is_animation else Film
    if costs is None:
        costs = AnimationLimits() if kind.is_animation or kind.decoder == "gif" else Unlimited()
    return opener(file, kind, costs)
