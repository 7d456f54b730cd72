"""Small jobs to kill: their roles, and at which passage of each kill point a role is inside the training steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mora_runtime.process.faults import POINTS

_OTHERWISE = 2
_TRANSPORT_POINTS = ("before_receive", "after_receive", "mapped", "slot_written", "header_sent")


@dataclass(frozen=True)
class SmallJob:
    """A job of one replica.

    Args:
        config: its configuration.
        passages: role -> point -> passage inside the steps, about the second step of a process. Transport points are
            passed several times in each step, and also earlier, while prompts and clips are prepared.
    """

    config: str
    passages: Mapping[str, Mapping[str, int]]

    @property
    def roles(self) -> dict[str, str]:
        """Kind of each role: server or coordinator."""
        return {role: "coordinator" if role.startswith("coordinator.") else "server" for role in self.passages}

    def pairs(self) -> list[tuple[str, str]]:
        """Every (role, point) that occurs."""
        return [(role, point) for role, kind in self.roles.items() for point, kinds in POINTS.items() if kind in kinds]

    def one_role_for_each_point(self) -> list[tuple[str, str]]:
        """Every point once; the roles that pass it take turns."""
        chosen: dict[str, str] = {}
        for point, kinds in POINTS.items():
            roles = [role for role, kind in self.roles.items() if kind in kinds]
            chosen[point] = min(roles, key=list(chosen.values()).count)  # the first of those with the fewest points
        return [(role, point) for point, role in chosen.items()]

    def specification(self, role: str, point: str) -> str:
        """A fault at this point of this role, inside a step."""
        return f"{role}:{point}:{self.passages[role].get(point, _OTHERWISE)}"


def _passages(transport: int, **others: int) -> dict[str, int]:
    return {
        **dict.fromkeys(_TRANSPORT_POINTS, transport),
        "gradient_ready": 3,
        "shard_written": 4,
        "fsynced": 4,
        **others,
    }


TINY = SmallJob(
    "configs/tiny.yaml",
    {
        "image.0": _passages(20, acked=3, mid_forward=800, mid_backward=800),
        "video.0": _passages(44, acked=2, mid_forward=800, mid_backward=800),
        "coordinator.0": _passages(34, acked=10, mapped=3),
    },
)
TOYS = SmallJob(
    "tests/toy_agents/chain.yaml",
    {
        "first.0": _passages(12, mapped=9, acked=3, mid_forward=9, mid_backward=9),
        "second.0": _passages(12, mapped=9, acked=3, mid_forward=12, mid_backward=12),
        "third.0": _passages(12, acked=2, mid_forward=18, mid_backward=18),
        "coordinator.0": _passages(35, before_receive=48, acked=10, mapped=3),
    },
)
PAIR = SmallJob(  # as `TOYS`, with fewer processes to start again
    "tests/toy_agents/pair.yaml",
    {
        "image.0": _passages(12, mapped=9, acked=3, mid_forward=9, mid_backward=9),
        "video.0": _passages(12, acked=2, mid_forward=18, mid_backward=18),
        "coordinator.0": _passages(35, acked=10, mapped=3),
    },
)
