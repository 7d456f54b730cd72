"""What a kind of agent takes and gives in a chain, told before any model is loaded. The launcher checks it."""

from __future__ import annotations

from typing import Literal

from mora_runtime.schema import PositiveInt, Settings
from pydantic import Field

Modality = Literal["images", "frames"]


class Port(Settings):
    """One named tensor between two agents, float32, about [-1, 1]; a size of None means any.

    `images`: (B, 3, H, W). `frames`: (B, F, 3, H, W).
    """

    modality: Modality
    height: PositiveInt | None = None
    width: PositiveInt | None = None
    num_frames: PositiveInt | None = None

    @property
    def sample_shape(self) -> tuple[int | None, ...]:
        """Shape of one sample; None = any size."""
        picture = (3, self.height, self.width)
        return picture if self.modality == "images" else (self.num_frames, *picture)

    def misfit(self, given: Port) -> str | None:
        """Tell why `given` cannot be passed to this port; None if it can."""
        if given.modality != self.modality:
            return f"expected {self.modality}, got {given.modality}"
        for name in ("height", "width", "num_frames"):
            mine, others = getattr(self, name), getattr(given, name)
            if mine is not None and others is not None and mine != others:
                return f"expected {name} {mine}, got {others}"
        return None


class Interface(Settings):
    """What an agent can do in a chain; the methods behind each field are in `protocols`.

    An agent with `gives` has `forward`. It is a source if it takes nothing, else a transform. An agent with `has_loss`
    can end a chain (`loss`), and, if it has `gives` too, can add its own loss from inside the chain.
    """

    takes: dict[str, Port] = Field(default_factory=dict)  # the previous agent's outputs, by name
    gives: dict[str, Port] = Field(default_factory=dict)  # outputs of `forward`, by name
    has_loss: bool = False
    needs_targets: bool = False  # its loss compares with clips that `store_target` received
    has_text: bool = False  # `encode` turns prompts into keys; without it, the prompts themselves are passed as keys
    has_modulation: bool = False  # `modulation_rows` starts its z; without it, it has no z and alpha is 1
    is_critic: bool = False  # scores the outputs of the agent before it; never trains
    is_metric: bool = False  # `measure` scores single videos; such an agent is in no chain and never trains
    generates: Port | None = None  # `generate`: what the agent makes at the end of a chain, without gradient
    has_noise: bool = False  # `initial_noise` tells the noise that a seed stands for
