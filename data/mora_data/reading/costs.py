"""What decoding costs, for a caller that limits it."""

from __future__ import annotations

from typing import Protocol


class Costs(Protocol):
    """Is told of the cost of one video as it grows, and raises to end the decoding."""

    def expect(self, num_frames: int, width: int, height: int) -> None:
        """The file claims so many frames, 0 if it does not say, of that size."""

    def count_packet(self) -> None:
        """A packet is about to be decoded."""

    def count_frame(self, width: int, height: int) -> None:
        """A frame has been decoded."""


class Unlimited:
    """Costs of the user's own files."""

    def expect(self, num_frames: int, width: int, height: int) -> None:
        """Allow it."""

    def count_packet(self) -> None:
        """Allow it."""

    def count_frame(self, width: int, height: int) -> None:
        """Allow it."""
