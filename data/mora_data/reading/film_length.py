"""The length of a video file."""

from __future__ import annotations

import contextlib

from av.container import InputContainer
from av.video.stream import VideoStream


def told_lengths_s(container: InputContainer, stream: VideoStream, *, of_whole: bool) -> list[float]:
    """Return the lengths that a file tells, of its video stream and, if wanted, of the whole file with its sound."""
    told_s = []
    if container.duration and of_whole:
        # Matroska counts from timestamp 0, not from the first frame
        before_s = max(0, container.start_time or 0) if container.format.name.startswith("matroska") else 0
        told_s.append((container.duration - before_s) / 1e6)
    if stream.duration and stream.time_base:
        told_s.append(float(stream.duration * stream.time_base))
    return [each for each in told_s if each > 0]


def packets_length_s(
    container: InputContainer,
    stream: VideoStream,
    *,
    rate: float,
    has_timestamps: bool,
    errors: tuple[type[Exception], ...],
) -> float:
    """Return the length from the first packet to the end of the last, by reading all; of a cut file, of what is there.

    Args:
        rate: frames per second, for packets that do not tell their duration.
    """
    starts_s, ends_s = [0.0], [0.0]
    with contextlib.suppress(*errors):
        for packet in container.demux(stream):
            if packet.size and packet.time_base:
                is_told = packet.pts is not None and has_timestamps
                start_s = float((packet.pts or 0) * packet.time_base) if is_told else ends_s[-1]
                starts_s.append(start_s)
                ends_s.append(start_s + (float((packet.duration or 0) * packet.time_base) or 1.0 / rate))
    return max(ends_s[1:], default=0.0) - min(starts_s[1:], default=0.0)
