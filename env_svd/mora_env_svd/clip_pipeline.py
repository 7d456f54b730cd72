"""What makes one clip: the protocol that every kind's pipeline has. Plain torch, no transport."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from torch import Tensor

PlanT = TypeVar("PlanT")
_PlanT = TypeVar("_PlanT", contravariant=True)
BeforePiece = Callable[[], None]
"""Called before each picture that is encoded and each piece that is decoded; it may raise."""
OnStep = Callable[[int, Tensor], None]
"""Takes the number of the step that is done, from 0, and the latents after it."""
OnFrames = Callable[[int, Tensor], None]
"""Takes the index of the first frame, and decoded frames uint8 (N, H, W, 3) from there on."""


def nothing_before() -> None:
    """The `BeforePiece` of a caller that neither counts nor cancels."""


class ClipPipeline(Protocol[_PlanT]):
    """Makes clips, one at a time. A plan is all that a clip depends on besides the pipeline's models and settings."""

    @property
    def num_steps(self) -> int:
        """The number of steps of a clip."""

    @property
    def clip_shape(self) -> tuple[int, int, int, int]:
        """(F, H, W, 3)."""

    def sample(
        self,
        plan: _PlanT,
        *,
        before_piece: BeforePiece = nothing_before,
        on_step: OnStep | None = None,
        on_frames: OnFrames | None = None,
    ) -> Tensor:
        """The clip, uint8 (F, H, W, 3) on the CPU; without gradient."""
