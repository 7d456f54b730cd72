"""The LoRA adapters of one agent in a checkpoint: a folder with the tensors and the settings that made them.

Needs no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mora_runtime.errors import CheckpointError, SettingsError
from mora_runtime.files.foreign_file import read_foreign
from mora_runtime.files.foreign_json import parse_object
from mora_runtime.schema import read_settings
from mora_training.training_settings import ADAPTER_FILE, TrainableSettings
from safetensors import SafetensorError, safe_open

from mora_launch.limits import MAX_CONFIG_NBYTES

_CONFIG_FILE = "config.json"


@dataclass(frozen=True)
class AdapterFolder:
    """What is known of adapters without their model."""

    path: Path
    num_layers: int  # that have an adapter
    rank: int
    alpha: float

    @classmethod
    def read(cls, path: Path) -> AdapterFolder:
        """Read a folder whose files have been compared with their hashes.

        Raises:
            CheckpointError: a file cannot be read, or is not that of adapters.
        """
        shown = "/".join(path.parts[-3:])
        try:
            content = parse_object(read_foreign(path / _CONFIG_FILE, MAX_CONFIG_NBYTES))
            settings = read_settings(TrainableSettings, content, source=_CONFIG_FILE)
            with safe_open(path / ADAPTER_FILE, framework="numpy") as file:
                num_layers = sum(name.endswith((".lora_A.weight", ".lora_embedding_A")) for name in file.keys())  # noqa: SIM118
        except (OSError, ValueError, SafetensorError, SettingsError) as error:
            raise CheckpointError(f"{shown}: expected LoRA adapters and their settings ({error})") from None
        if num_layers == 0:
            raise CheckpointError(f"{shown}: {ADAPTER_FILE} has no LoRA adapter; mora did not write it")
        return cls(path, num_layers, settings.lora_rank, settings.lora_alpha)

    def __str__(self) -> str:
        layers = "1 layer" if self.num_layers == 1 else f"{self.num_layers} layers"
        return f"LoRA adapters of {layers} (rank {self.rank}, alpha {self.alpha:g})"
