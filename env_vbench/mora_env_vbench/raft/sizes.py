"""The sizes of a RAFT model, told by the shapes of its tensors."""

from __future__ import annotations

from dataclasses import dataclass

from mora_env_vbench.weights.loading import Shapes


@dataclass(frozen=True)
class RaftSizes:
    """Channels: of both encoders at 1/2, 1/4 and 1/8 of the resolution, and of what they give."""

    encoder: tuple[int, int, int]
    features: int
    hidden: int
    context: int

    @classmethod
    def of(cls, shapes: Shapes) -> RaftSizes:
        """Raises KeyError or IndexError if the tensors are not those of RAFT."""
        half, quarter, eighth = (shapes[f"fnet.layer{level}.1.conv2.weight"][0] for level in (1, 2, 3))
        hidden = shapes["update_block.flow_head.conv1.weight"][1]
        context = shapes["cnet.conv2.weight"][0] - hidden
        return cls((half, quarter, eighth), shapes["fnet.conv2.weight"][0], hidden, context)


PUBLISHED = RaftSizes(encoder=(64, 96, 128), features=256, hidden=128, context=128)
