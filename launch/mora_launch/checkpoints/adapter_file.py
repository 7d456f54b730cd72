"""A file of LoRA adapters in one of the formats that `./mora checkpoint export` writes. Needs no torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mora_environment.adapters.names import DIFFUSERS_FILE, DIFFUSERS_METADATA, PEFT_CONFIG, PEFT_PREFIX
from mora_runtime.errors import CheckpointError, SettingsError
from mora_runtime.files.foreign_file import open_foreign, read_foreign
from mora_runtime.files.foreign_json import parse_object
from mora_runtime.rpc.server_settings import AllowedAdapters
from mora_training.training_settings import ADAPTER_FILE
from safetensors import SafetensorError, safe_open

from mora_launch.checkpoints.adapter_folder import AdapterFolder
from mora_launch.limits import MAX_CONFIG_NBYTES

_PEFT_UNUSED = ("rank_pattern", "alpha_pattern", "use_dora", "use_rslora", "modules_to_save", "lora_bias")
_DOWN, _UP = ".lora_A.weight", ".lora_B.weight"


@dataclass(frozen=True)
class AdapterFile:
    """What is known of adapters without their model.

    Args:
        prefix: of the names of the tensors, before those of the model's layers.
    """

    path: Path
    nbytes: int
    sha256: str
    num_layers: int
    rank: int
    alpha: float
    prefix: str = ""

    @classmethod
    def is_at(cls, path: Path) -> bool:
        """Return whether a path is a file of adapters or a folder with one."""
        return path.suffix == ".safetensors" or any((path / name).is_file() for name in (ADAPTER_FILE, DIFFUSERS_FILE))

    @classmethod
    def read(cls, path: Path) -> AdapterFile:
        """Read a file of diffusers, or a folder with a file and its settings.

        Raises:
            CheckpointError: it cannot be read, or is not in one of the formats.
        """
        try:
            if path.is_file():
                return cls._diffusers(path)
            if (path / DIFFUSERS_FILE).is_file():
                return cls._diffusers(path / DIFFUSERS_FILE)
            if (path / PEFT_CONFIG).is_file():
                return cls._peft(path)
            folder = AdapterFolder.read(path)
            return cls._checked(path / ADAPTER_FILE, folder.rank, folder.alpha, "")
        except (OSError, ValueError, SafetensorError, SettingsError) as error:
            raise CheckpointError(f"{path}: cannot be read as LoRA adapters ({error})") from None

    @classmethod
    def _peft(cls, folder: Path) -> AdapterFile:
        config = parse_object(read_foreign(folder / PEFT_CONFIG, MAX_CONFIG_NBYTES))
        unknown = [name for name in _PEFT_UNUSED if config.get(name)]
        if config.get("peft_type") != "LORA" or config.get("bias", "none") != "none" or unknown:
            told = f"`{unknown[0]}`" if unknown else f"{config.get('peft_type')} with bias {config.get('bias')}"
            raise CheckpointError(f"{folder}: expected plain LoRA adapters, got {told[:80]}")
        rank, alpha = _rank_and_alpha(folder, config, "r", "lora_alpha")
        return cls._checked(folder / ADAPTER_FILE, rank, alpha, PEFT_PREFIX)

    @classmethod
    def _diffusers(cls, path: Path) -> AdapterFile:
        with safe_open(_regular(path), framework="numpy") as file:
            component = next(iter(file.keys()), "").partition(".")[0]
            told = (file.metadata() or {}).get(DIFFUSERS_METADATA)
        if told is None:
            raise CheckpointError(
                f"{path}: expected `{DIFFUSERS_METADATA}` in its header, which tells alpha; write it with a recent "
                "diffusers, or with `./mora checkpoint export`"
            )
        content = parse_object(told.encode())
        rank, alpha = _rank_and_alpha(path, content, f"{component}.r", f"{component}.lora_alpha")
        return cls._checked(path, rank, alpha, f"{component}.")

    @classmethod
    def _checked(cls, path: Path, rank: int, alpha: float, prefix: str) -> AdapterFile:
        with safe_open(_regular(path), framework="numpy") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        for name, shape in shapes.items():
            if not (name.startswith(prefix) and name.endswith((_DOWN, _UP)) and len(shape) >= 2):
                raise CheckpointError(f"{path}: `{name[:120]}`: expected {prefix}LAYER{_DOWN} or {_UP}")
            own = shape[0] if name.endswith(_DOWN) else shape[1]
            if own != rank:
                raise CheckpointError(f"{path}: `{name[:120]}` has rank {own}, its settings say {rank}")
        with open(open_foreign(path), "rb") as handle:
            digest = hashlib.file_digest(handle, "sha256").hexdigest()
        num_layers = sum(name.endswith(_DOWN) for name in shapes)
        return cls(path, path.stat().st_size, digest, num_layers, rank, alpha, prefix)

    def allowed_as(self, name: str, *, must_fit: bool) -> AllowedAdapters:
        """Return what a server needs to load them."""
        return AllowedAdapters(
            name=name, file=str(self.path.absolute()), nbytes=self.nbytes, sha256=self.sha256, alpha=self.alpha,
            prefix=self.prefix, must_fit=must_fit,
        )  # fmt: skip


def _regular(path: Path) -> Path:
    """Return the path of a regular file; others could block when they are opened."""
    with open(open_foreign(path), "rb"):
        return path


def _rank_and_alpha(path: Path, content: Mapping[str, Any], rank: str, alpha: str) -> tuple[int, float]:
    found, scale = content.get(rank), content.get(alpha)
    if type(found) is not int or found < 1 or not isinstance(scale, int | float):
        told = json.dumps({rank: found, alpha: scale})[:120]
        raise CheckpointError(f"{path}: expected a rank of at least 1 and a number as alpha, got {told}")
    return found, float(scale)
