"""What decoding costs, for a caller that limits it."""

from __future__ import annotations

from typing import Protocol

from mora_data.reading.unreadable import Unreadable

_MAX_NUM_FRAMES = 20_000
_MAX_NUM_PIXELS = 1 << 30  # of all frames together: 500 of 1920x1080


class Costs(Protocol):
    """Is told of the cost of one video as it grows, and raises to end the decoding."""

    def expect(self, num_frames: int, width: int, height: int) -> None:
        """The file claims so many frames, 0 if it does not say, of that size."""

    def count_packet(self) -> None:
        """A packet is about to be decoded."""

    def count_frame(self, width: int, height: int) -> None:
        """A frame has been decoded."""


class Unlimited:
    """Costs of the user's own films, which can have any length."""

    def expect(self, num_frames: int, width: int, height: int) -> None:
        """Allow it."""

    def count_packet(self) -> None:
        """Allow it."""

    def count_frame(self, width: int, height: int) -> None:
        """Allow it."""


class AnimationLimits(Unlimited):
    """Costs of animated pictures, a few bytes of which can claim gigabytes of frames. Each method raises Unreadable."""

    def __init__(self) -> None:
        self._num_frames = self._num_pixels = 0

    def expect(self, num_frames: int, width: int, height: int) -> None:
        """Check what the file claims, and begin to count."""
        self._num_frames = self._num_pixels = 0
        self._check(num_frames, num_frames * width * height)

    def count_frame(self, width: int, height: int) -> None:
        """Count a frame."""
        self._num_frames += 1
        self._num_pixels += width * height
        self._check(self._num_frames, self._num_pixels)

    def _check(self, num_frames: int, num_pixels: int) -> None:
        if num_frames > _MAX_NUM_FRAMES:
            raise Unreadable(f"expected at most {_MAX_NUM_FRAMES} frames of an animated picture; make it a video")
        if num_pixels > _MAX_NUM_PIXELS:
            raise Unreadable(
                f"expected at most {_MAX_NUM_PIXELS} pixels in all frames of an animated picture; make it a video"
            )
