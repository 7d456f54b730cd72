"""`from_pretrained` and `save_pretrained` of every model here: diffusers' folder layout, loaded strictly."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from mora_env_opensora.models.checkpoint_files import read_json, read_safetensors, write_json, write_safetensors
from mora_env_opensora.models.config_schema import ConfigSchema
from mora_env_opensora.models.errors import WeightsFileError

CONFIG_NAME = "config.json"
_LISTED = 12  # tensor names that an error lists per kind of mismatch
_DIFFUSERS_VERSION = "0.28.0"


class PretrainedMixin:
    """Mixin for an `nn.Module` with `config` and `from_config`."""

    config: ConfigSchema
    config_class: ClassVar[type[ConfigSchema]]

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> Self:
        """Load a published or saved folder: `config.json` and safetensors in one file or in shards with an index.

        Returns:
            The model in eval mode, every weight of `dtype` on `device`.

        Raises:
            ConfigError: `config.json` has a key or value that this model does not support.
            WeightsFileError: a file is absent or broken; or tensors are missing, unexpected, of another shape or not
               finite. Then nothing is loaded.
        """
        folder = Path(path)
        config = read_json(folder / CONFIG_NAME)
        with torch.device("meta"):
            model = cls.from_config(config)  # type: ignore[attr-defined]
        load_strictly(model, cls._read_weights(folder), source=folder.name, dtype=dtype, device=device)
        return model.eval()

    @classmethod
    def _read_weights(cls, folder: Path) -> dict[str, Tensor]:
        return read_safetensors(folder)

    def config_json(self) -> dict[str, Any]:
        """Content of `config.json` as upstream writes it."""
        own = {"_class_name": type(self).__name__, "_diffusers_version": _DIFFUSERS_VERSION}
        return own | self.config.to_dict()

    def save_pretrained(self, path: str | Path, *, max_shard_bytes: int | None = None) -> None:
        """Write upstream's layout to folder `path`, which is created if absent; each file appears whole or not at all.

        LoRA adapters injected by peft are merged into the layers they adapt, so that the saved keys are exactly the
        published ones.

        Args:
            max_shard_bytes: split the weights over files of at most this size, with an index. None writes one file,
            which every version of upstream can read.
        """
        assert isinstance(self, nn.Module)
        folder = Path(path)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / CONFIG_NAME, self.config_json())
        write_safetensors(folder, merged_state_dict(self), max_shard_bytes)


def load_strictly(
    model: nn.Module,
    weights: Mapping[str, Tensor],
    *,
    source: str,
    dtype: torch.dtype,
    device: torch.device | str,
) -> None:
    """Put `weights` into `model` (which may be on the meta device) only if they fit exactly.

    Raises:
        WeightsFileError: lists missing, unexpected and mis-shaped tensors and those with NaN or infinity.
    """
    own = model.state_dict()
    problems = {
        "missing": sorted(own.keys() - weights.keys()),
        "unexpected": sorted(weights.keys() - own.keys()),
        "of another shape": [
            f"{key} (expected {tuple(own[key].shape)}, got {tuple(weights[key].shape)})"
            for key in sorted(own.keys() & weights.keys())
            if own[key].shape != weights[key].shape
        ],
        "not finite": sorted(key for key, tensor in weights.items() if not torch.isfinite(tensor).all()),
    }
    found = [f"{len(names)} {kind}: {_some(names)}" for kind, names in problems.items() if names]
    if found:
        raise WeightsFileError(
            f"{type(model).__name__} from `{source}`: expected {len(own)} finite tensors that fit config.json, got "
            f"{len(weights)} with {'; '.join(found)}. Nothing was loaded; check that folder and config belong together."
        )
    cast = {key: tensor.to(device=device, dtype=dtype) for key, tensor in weights.items()}
    model.load_state_dict(cast, strict=True, assign=True)


def merged_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """The state dict with the published keys; layers that peft wrapped for LoRA contribute weight + delta."""
    merged: dict[str, Tensor] = {}
    wrapped = {name: module for name, module in model.named_modules() if hasattr(module, "get_base_layer")}
    for key, tensor in model.state_dict().items():
        owner = next((name for name in wrapped if key.startswith(f"{name}.")), None)
        if owner is None:
            merged[key] = tensor
        elif key.startswith(f"{owner}.base_layer."):
            name = key.removeprefix(f"{owner}.base_layer.")
            merged[f"{owner}.{name}"] = tensor + _lora_delta(wrapped[owner]) if name == "weight" else tensor
    return merged


def _lora_delta(layer: Any) -> Tensor:
    """Sum of the active adapters' low-rank products; computes nothing if none is active or they are merged."""
    weight: Tensor = layer.get_base_layer().weight
    delta = torch.zeros_like(weight)
    if not layer.merged:
        for adapter in layer.active_adapters:
            if adapter in layer.lora_A:
                delta += layer.get_delta_weight(adapter).to(weight.dtype)
    return delta.detach()


def _some(names: list[str]) -> str:
    rest = f", and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + rest
