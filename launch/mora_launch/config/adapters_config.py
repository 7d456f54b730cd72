"""The section `serving.adapters`: LoRA adapters that requests may ask for by name."""

from __future__ import annotations

from typing import Annotated

from mora_runtime.schema import Settings
from pydantic import Field

ADAPTER_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"


class AdaptersConfig(Settings):
    """Where they are."""

    folder: str | None = None  # with a subfolder or file for each name
    # by name: RUN or RUN:STEP, a folder that `checkpoint export` wrote, or a file of diffusers
    named: dict[Annotated[str, Field(pattern=ADAPTER_NAME)], str] = Field(default_factory=dict)
