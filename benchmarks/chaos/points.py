"""Which roles of a small job pass which kill points, and a passage of each that lies inside the training steps."""

from __future__ import annotations

from mora_runtime.faults import POINTS

ROLES = {"image.0": "server", "video.0": "server", "coordinator.0": "coordinator"}
# In about the third step that a process takes part in: a checkpoint has been committed then, so its peers live on
# beside the one that dies. Transport points are passed while prompts and clips are prepared too, and some several times
# a step.
_PASSAGES = {
    "before_receive": 120,
    "after_receive": 48,
    "mapped": 48,
    "slot_written": 48,
    "header_sent": 48,
    "acked": 16,
    "mid_forward": 1200,
    "mid_backward": 1200,
    "gradient_ready": 6,
    "shard_written": 7,
    "fsynced": 7,
}


def pairs() -> list[tuple[str, str]]:
    """Every (role, point) that can come true in a job of one replica."""
    return [(role, point) for role, kind in ROLES.items() for point, kinds in POINTS.items() if kind in kinds]


def specification(role: str, point: str) -> str:
    """A fault at this point of this role, inside a step."""
    return f"{role}:{point}:{_PASSAGES.get(point, 3)}"
