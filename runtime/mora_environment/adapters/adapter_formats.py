"""The formats in which LoRA adapters travel to other libraries. In each, alpha travels with the tensors."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from mora_training.adapters import read_adapter_settings
from mora_training.training_settings import ADAPTER_FILE, TrainableSettings
from safetensors.torch import load_file, save_file

from mora_environment.adapters.names import DIFFUSERS_FILE, DIFFUSERS_METADATA, PEFT_CONFIG, PEFT_PREFIX


def write_diffusers(source: Path, target: Path, component: str) -> None:
    """Write adapters as the file that `load_lora_weights` of a diffusers pipeline reads.

    Args:
        source: folder of a checkpoint's adapters.
        target: folder that exists.
        component: of the pipeline, which has the adapted model.
    """
    settings = _peft_settings(read_adapter_settings(source))
    metadata = {f"{component}.{name}": value for name, value in settings.items()}
    header = {"format": "pt", DIFFUSERS_METADATA: json.dumps(metadata, indent=2, sort_keys=True)}
    save_file(_renamed(source, f"{component}.".__add__), target / DIFFUSERS_FILE, metadata=header)


def write_peft(source: Path, target: Path, base: str | None) -> None:
    """Write adapters as the folder that peft's `PeftModel.from_pretrained` reads.

    Args:
        source: folder of a checkpoint's adapters.
        target: folder that exists.
        base: folder or Hub id of the model that they adapt.
    """
    config = {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": base,
        "inference_mode": True,
        **_peft_settings(read_adapter_settings(source)),
    }
    save_file(_renamed(source, PEFT_PREFIX.__add__), target / ADAPTER_FILE, metadata={"format": "pt"})
    (target / PEFT_CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _peft_settings(settings: TrainableSettings) -> dict[str, Any]:
    """Arguments of peft's `LoraConfig`, with the values that training used."""
    alpha = settings.lora_alpha
    return {
        "r": settings.lora_rank,
        "lora_alpha": int(alpha) if alpha.is_integer() else alpha,
        "target_modules": list(settings.lora_targets),
        "lora_dropout": 0.0,
        "bias": "none",
    }


def _renamed(source: Path, rename: Callable[[str], str]) -> dict[str, torch.Tensor]:
    return {rename(name): tensor for name, tensor in load_file(source / ADAPTER_FILE).items()}
