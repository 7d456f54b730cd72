"""Which roles of a small job pass which kill points, and a passage of each that lies inside the training steps."""

from __future__ import annotations

from mora_runtime.faults import POINTS

ROLES = {"image.0": "server", "video.0": "server", "coordinator.0": "coordinator"}
# Transport points are passed while prompts and clips are prepared too; these passages come after that.
_PASSAGES = {
    "before_receive": 40,
    "after_receive": 16,
    "mapped": 16,
    "slot_written": 16,
    "header_sent": 16,
    "acked": 6,
    "mid_forward": 3,
    "mid_backward": 3,
}


def pairs() -> list[tuple[str, str]]:
    """Every (role, point) that can come true in a job of one replica."""
    return [(role, point) for role, kind in ROLES.items() for point, kinds in POINTS.items() if kind in kinds]


def specification(role: str, point: str) -> str:
    """A fault at this point of this role, inside a step."""
    return f"{role}:{point}:{_PASSAGES.get(point, 1)}"
