"""LoRA adapters of a module: made by peft, loaded from a checkpoint, merged into the weights.

A folder of adapters has `adapter_model.safetensors`, whose names are those of the module, and `config.json`, the
settings with which the adapters were made: rank and alpha come from there, because the tensors do not tell alpha.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mora_runtime.errors import CheckpointError, SettingsError
from mora_runtime.files.foreign_file import read_foreign
from mora_runtime.files.foreign_json import parse_object
from mora_runtime.schema import nearest_name, read_settings
from safetensors import SafetensorError, safe_open

from mora_training.training_settings import ADAPTER_FILE, TrainableSettings
from mora_training.weights_file import copy_tensors, shown

CONFIG_FILE = "config.json"
_MAX_CONFIG_NBYTES = 1 << 20
_NUM_SHOWN = 12  # names of layers in an error


def inject_adapters(module: torch.nn.Module, settings: TrainableSettings) -> None:
    """Wrap every layer that a target names with a new adapter, and freeze everything else.

    Raises:
        SettingsError: a target matches no layer, or one that cannot have an adapter.
    """
    _check_targets(module, settings.lora_targets)
    from peft import LoraConfig, inject_adapter_in_model  # heavy, and absent from the control environment

    config = LoraConfig(
        r=settings.lora_rank, lora_alpha=settings.lora_alpha, target_modules=list(settings.lora_targets)
    )
    try:
        inject_adapter_in_model(config, module)
    except ValueError as error:
        raise SettingsError(f"LoRA targets {list(settings.lora_targets)} do not fit this model: {error}") from None


def _check_targets(module: torch.nn.Module, targets: tuple[str, ...]) -> None:
    """Refuse a target that matches nothing: peft only refuses targets that match nothing together."""
    if not targets:
        raise SettingsError("trainable scope is `lora` but `lora_targets` is empty; name layers, or use scope `none`")
    names = [name for name, _ in module.named_modules() if name]
    for target in targets:
        if any(name == target or name.endswith(f".{target}") for name in names):
            continue
        layers = _layer_names(module)
        nearest = nearest_name(target, layers)
        hint = f"the nearest name is `{nearest}`" if nearest else f"its layers are {_listed(layers)}"
        raise SettingsError(f"`lora_targets`: `{target}` matches no layer of this model; {hint}")


def _layer_names(module: torch.nn.Module) -> list[str]:
    """The ends of the names of layers with a matrix, each once: `to_q`, `to_out.0`."""
    found: dict[str, None] = {}
    for name, layer in module.named_modules():
        weight = getattr(layer, "weight", None)
        if isinstance(weight, torch.Tensor) and weight.ndim >= 2:
            parts = name.split(".")
            found[".".join(parts[-2:]) if parts[-1].isdecimal() else parts[-1]] = None
    return list(found)


def _listed(names: list[str]) -> str:
    rest = f" and {len(names) - _NUM_SHOWN} more" if len(names) > _NUM_SHOWN else ""
    return (", ".join(names[:_NUM_SHOWN]) or "none") + rest


def num_adapted_layers(module: torch.nn.Module) -> int:
    """Number of layers of a module that have an adapter."""
    return sum(hasattr(layer, "lora_A") for layer in module.modules())


def adapter_tensors(
    module: torch.nn.Module, state: Mapping[str, torch.Tensor] | None = None
) -> dict[str, torch.Tensor]:
    """The tensors of a module's adapters by the names that files have.

    Args:
        state: to take them from, with the names of the module's state; None = the module's own tensors, not copies.
    """
    from peft.utils import get_peft_model_state_dict

    own = module.state_dict() if state is None else dict(state)
    found: dict[str, torch.Tensor] = get_peft_model_state_dict(module, state_dict=own)
    return found


def load_adapters(module: torch.nn.Module, folder: Path) -> None:
    """Give a module the adapters of a folder, with their own rank and alpha; then none of its parameters trains.

    The caller must have checked the files' hashes against the manifest of their checkpoint.

    Raises:
        CheckpointError: a file cannot be read, or its adapters belong to another model.
    """
    settings = read_adapter_settings(folder)
    _check_rank(folder / ADAPTER_FILE, settings.lora_rank)
    try:
        inject_adapters(module, settings)
    except SettingsError as error:
        raise CheckpointError(
            f"{shown(folder)}: its LoRA adapters do not fit the loaded model ({error}); use the configuration of their "
            "run"
        ) from None
    copy_tensors(folder / ADAPTER_FILE, adapter_tensors(module))
    module.requires_grad_(False)


def read_adapter_settings(folder: Path) -> TrainableSettings:
    """The settings with which the adapters in a folder were made.

    Raises:
        CheckpointError: `config.json` cannot be read, or is not that of adapters.
    """
    path = folder / CONFIG_FILE
    try:
        content = parse_object(read_foreign(path, _MAX_CONFIG_NBYTES))
        settings = read_settings(TrainableSettings, content, source=shown(path))
    except (OSError, ValueError, SettingsError) as error:
        raise CheckpointError(f"{shown(path)}: expected the settings of LoRA adapters ({error})") from None
    if settings.scope != "lora" or settings.lora_rank < 1:
        raise CheckpointError(
            f"{shown(path)}: expected scope `lora` and a rank of at least 1, got `{settings.scope}` and "
            f"{settings.lora_rank}"
        )
    return settings


def _check_rank(path: Path, rank: int) -> None:
    """Compare the rank of the settings with the tensors, before memory for such adapters is allocated."""
    try:
        with safe_open(path, framework="pt") as file:
            names = [name for name in file.keys() if name.endswith(".lora_A.weight")]  # noqa: SIM118
            ranks = {name: file.get_slice(name).get_shape()[0] for name in names}
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{shown(path)}: cannot be read ({error})") from None
    wrong = next((name for name, found in ranks.items() if found != rank), None)
    if wrong is not None:
        raise CheckpointError(
            f"{shown(path)}: `{wrong}` has rank {ranks[wrong]}, its config.json says {rank}; export the run again"
        )


@torch.no_grad()
def merged_weights(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The module's state by the names that it has without adapters, with each adapter added to the layer it adapts.

    The tensors are the module's own. The sums are made in place, so the module computes the same as before.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers: dict[str, Any] = {
        name: layer for name, layer in module.named_modules() if isinstance(layer, BaseTunerLayer)
    }
    for layer in layers.values():
        layer.merge()
    merged: dict[str, torch.Tensor] = {}
    for name, tensor in module.state_dict().items():
        owner = next((each for each in layers if name.startswith(f"{each}.")), None)
        if owner is None:
            merged[name] = tensor
        elif name.startswith(f"{owner}.base_layer."):
            merged[f"{owner}.{name.removeprefix(f'{owner}.base_layer.')}"] = tensor
    return merged
