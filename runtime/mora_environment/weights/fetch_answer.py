"""What the command `fetch` answers. The launcher reads it, so it needs no torch."""

from __future__ import annotations

from mora_runtime.schema import Settings
from pydantic import Field


class PlannedFile(Settings):
    """One file to download."""

    repository: str
    path: str
    nbytes: int = Field(ge=0)
    num_missing_nbytes: int = Field(ge=0)  # less than `nbytes` where an earlier download was interrupted


class PlannedConversion(Settings):
    """Weights to convert to safetensors."""

    repository: str
    path: str
    dtype: str
    nbytes: int = Field(ge=0)  # of the result; at most, if the number of parameters is not known


class FetchAnswer(Settings):
    """What an environment has to fetch, or what it has fetched."""

    cache: str  # the Hub's cache
    converted: str  # folder of all converted weights
    files: tuple[PlannedFile, ...] = ()
    conversions: tuple[PlannedConversion, ...] = ()


class RefusedFetch(Settings):
    """Why an environment cannot fetch."""

    error: str
