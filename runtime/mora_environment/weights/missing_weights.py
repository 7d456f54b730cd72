"""Weights that are not on this machine: a part of an environment's answer about options. It needs no torch."""

from __future__ import annotations

from mora_runtime.schema import Settings


class MissingWeights(Settings):
    """Files of one repository of the Hub that an agent would load, and that are not on this machine."""

    option: str  # key of the configuration that names the repository
    repository: str
    files: tuple[str, ...]  # paths in the repository; of weights whose files are unknown, a pattern
    needs_conversion: bool = False  # they are here, but have not been converted to safetensors

    def __str__(self) -> str:
        """What is missing, in one line without advice."""
        if self.needs_conversion:
            return f"{self.option}: {self.repository} ({self.files[0]}) is not converted to safetensors yet"
        more = f" and {len(self.files) - 1} more" if len(self.files) > 1 else ""
        return f"{self.option}: {self.repository} ({self.files[0]}{more}) is not on this machine"
