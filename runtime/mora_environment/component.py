"""An environment's description of an agent's model for the launcher. Both import it, so it needs no torch."""

from __future__ import annotations

from mora_runtime.schema import PositiveInt, Settings
from pydantic import Field


class Component(Settings):
    """One model of an agent."""

    name: str
    num_parameters: int = Field(ge=0)  # 0 = unknown, because the model is not downloaded yet
    dtype_nbytes: PositiveInt  # size of one parameter when loaded
    trainable: bool
    is_unloaded: bool = False  # leaves memory before the first step, as text encoders do
