"""Where an agent's weights come from: what `weights_sources()` of options returns. It needs no torch."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from mora_runtime.schema import PositiveInt, Settings
from pydantic import Field

_PART = r"(?!\.{1,2}(?:/|$))[\w.-]+"
_HUB_ID = re.compile(rf"({_PART}/{_PART})((?:/{_PART})*)/?")


class Conversion(Settings):
    """Weights that `fetch` converts to safetensors, because the Hub has them only as pickle.

    Of a file `pytorch_model.bin` of 52 GB that every server would read, an encoder's part in bfloat16 is 11 GB.
    """

    file: str  # such as `pytorch_model.bin`; if it is absent, its shards, which `FILE.index.json` names
    dtype: Literal["float32", "bfloat16"]
    prefixes: tuple[str, ...]  # tensors whose names begin with one of these are stored
    tied: dict[str, str] = Field(default_factory=dict)  # a tensor's name -> the stored tensor that it always equals
    num_parameters: PositiveInt | None = None  # of the stored tensors, to tell the size before the download


class WeightsSource(Settings):
    """Files in one folder that an agent loads. A folder of this machine is left to the check of the options."""

    option: str  # the option that names them, for messages
    name: str  # a folder, or a Hub id `owner/repository[/folder]`
    subfolder: str = ""  # below it
    files: tuple[str, ...] = ()  # by name
    extras: tuple[str, ...] = ()  # patterns of files that are loaded if they exist
    weights: str | None = None  # STEM of `STEM.safetensors`, or of `STEM.safetensors.index.json` and its shards
    otherwise: tuple[str, ...] = ()  # patterns of weights where there are no safetensors
    conversion: Conversion | None = None  # of weights where there are neither

    def place(self) -> HubPlace | None:
        """Where the files are on the Hub; None for a folder of this machine and for what is no Hub id."""
        return None if Path(self.name).is_dir() else HubPlace.of(self.name, self.subfolder)


class HubPlace(Settings):
    """A folder of a repository on the Hub; `folder` is empty for its root."""

    repository: str
    folder: str = ""

    @classmethod
    def of(cls, name: str, subfolder: str = "") -> HubPlace | None:
        """The place that a Hub id names; None if it is none."""
        found = _HUB_ID.fullmatch(name)
        if found is None:
            return None
        parts = (found[2].strip("/"), subfolder)
        return cls(repository=found[1], folder="/".join(part for part in parts if part))

    def path_of(self, file: str) -> str:
        """Path of a file of this folder in the repository."""
        return f"{self.folder}/{file}" if self.folder else file

    def __str__(self) -> str:
        return f"{self.repository}/{self.folder}" if self.folder else self.repository
