"""One stage of a video job: its steps, and a small picture of what it has made."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

from mora_data.reading.fitting import Clip
from PIL import Image

from mora_launch.limits import STAGE_PICTURE_SIDE


@dataclass
class JobStage:
    """One stage of a job that has begun.

    Attributes:
        step, num_steps: of the call that runs; 0 before the first answer about it.
        has_ended: its result exists; with a review, a person may still change it.
        picture: JPEG of the result, or of the middle frame of a clip; None of an early stage among many.
        text: the result of a stage that makes a text.
    """

    name: str
    step: int = 0
    num_steps: int = 0
    has_ended: bool = False
    picture: bytes | None = None
    text: str | None = None
    version: int = 0  # increases with every result, so that a client knows when to fetch the picture again

    def end_with(self, made: Clip | str) -> None:
        """Record the stage's result."""
        self.version += 1
        self.has_ended = True
        if isinstance(made, str):
            self.text = made
        else:
            self.picture = _picture(made if made.ndim == 3 else made[len(made) // 2])

    def as_json(self) -> dict[str, Any]:
        """Return it as clients see it."""
        return {
            "name": self.name, "status": "completed" if self.has_ended else "in_progress", "step": self.step,
            "num_steps": self.num_steps, "text": self.text,
            "picture": self.version if self.picture is not None else None,
        }  # fmt: skip


def _picture(frame: Clip) -> bytes:
    image = Image.fromarray(frame)
    image.thumbnail((STAGE_PICTURE_SIDE, STAGE_PICTURE_SIDE))
    sink = io.BytesIO()
    image.save(sink, "JPEG", quality=85)
    return sink.getvalue()
