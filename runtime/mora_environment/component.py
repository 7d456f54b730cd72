"""A model of an agent, as an environment describes it to the launcher. Both import it, so it loads no torch."""

from __future__ import annotations

from mora_runtime.schema import PositiveInt, Settings
from pydantic import Field


class Component(Settings):
    """One model of an agent."""

    name: str
    num_parameters: int = Field(ge=0)  # 0 where the model has yet to be fetched
    dtype_nbytes: PositiveInt  # of one parameter when loaded
    trainable: bool
