"""Which parts the check has, in the order of their worth, and how long each may take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

TOTAL_S = 350.0  # parts that have not begun by then are skipped

Place = Literal["control", "image", "video"]


@dataclass(frozen=True)
class Part:
    """One part of the check.

    Attributes:
        name: of the part, and of its module in `parts`.
        place: whose interpreter runs it.
        deadline_s: after it the part's processes are killed, and the part has failed.
        what: it checks, for the table.
        measures_memory: whether its figures have the memory of a call of the agent `place`, which the plan has too.
    """

    name: str
    place: Place
    deadline_s: float
    what: str
    measures_memory: bool = False


PARTS = (
    Part("recovery", "control", 120.0, "a job on the device, a death, the recovery, a resumption"),
    Part("published_video", "video", 80.0, "loss, backward, a sampler step of the video model at published size", True),
    Part("published_image", "image", 50.0, "pictures and backward of the image model at published size", True),
    Part("gpu_tests", "control", 100.0, "tests/gpu"),
    Part("rates", "video", 50.0, "rates of copies, matrices, attention and convolutions"),
    Part("ipc", "control", 60.0, "device memory between processes, and deaths of its readers and owners"),
    Part("parity", "control", 80.0, "gradients of the chain against the same chain in one process"),
)
