"""Which roles of a small job pass which kill points, and at which passage each is inside the training steps."""

from __future__ import annotations

from mora_runtime.process.faults import POINTS

ROLES = {"image.0": "server", "video.0": "server", "coordinator.0": "coordinator"}
# About the second step of a process. Transport points are passed several times in each step, and also earlier, while
# prompts and clips are prepared, mostly by the video server.
_TRANSPORT_POINTS = ("before_receive", "after_receive", "mapped", "slot_written", "header_sent")
_PASSAGES = {
    "image.0": dict.fromkeys(_TRANSPORT_POINTS, 20) | {"acked": 3},
    "video.0": dict.fromkeys(_TRANSPORT_POINTS, 44) | {"acked": 2},
    "coordinator.0": dict.fromkeys(_TRANSPORT_POINTS, 34) | {"acked": 10, "mapped": 3},
}
_PASSAGES_OF_ALL = {"mid_forward": 800, "mid_backward": 800, "gradient_ready": 3, "shard_written": 4, "fsynced": 4}
_OTHERWISE = 2


def pairs() -> list[tuple[str, str]]:
    """Every (role, point) that occurs in a job of one replica."""
    return [(role, point) for role, kind in ROLES.items() for point, kinds in POINTS.items() if kind in kinds]


def one_role_for_each_point() -> list[tuple[str, str]]:
    """Every point once; the roles that pass it take turns."""
    chosen: dict[str, str] = {}
    for point, kinds in POINTS.items():
        roles = [role for role, kind in ROLES.items() if kind in kinds]
        chosen[point] = min(roles, key=list(chosen.values()).count)  # the first of those with the fewest points
    return [(role, point) for point, role in chosen.items()]


def specification(role: str, point: str) -> str:
    """A fault at this point of this role, inside a step."""
    number = _PASSAGES[role].get(point) or _PASSAGES_OF_ALL.get(point, _OTHERWISE)
    return f"{role}:{point}:{number}"
