"""LoRA adapters for a model on disk, with random numbers in place of training."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from mora_training.training_settings import ADAPTER_FILE, TrainableSettings
from safetensors import safe_open
from safetensors.numpy import save_file

RANK, ALPHA = 4, 10.0  # alpha is not the rank, so a reader that does not know alpha is found
TARGETS = ("to_q", "to_v")


def write_adapters(weights: Path, folder: Path, seed: int, size: float = 0.3) -> Path:
    """Write adapters in Mora's own format for all layers that `TARGETS` name.

    Args:
        weights: the model's safetensors file.
        folder: is made.
        size: of the numbers in the second matrices.
    """
    numbers = np.random.default_rng(seed)
    tensors = {}
    with safe_open(weights, framework="numpy") as file:
        for key in sorted(file.keys()):
            layer = key.removesuffix(".weight")
            if layer != key and layer.endswith(tuple(f".{target}" for target in TARGETS)):
                num_out, num_in = file.get_slice(key).get_shape()
                tensors[f"{layer}.lora_A.weight"] = numbers.normal(0, 0.3, (RANK, num_in)).astype("f4")
                tensors[f"{layer}.lora_B.weight"] = numbers.normal(0, size, (num_out, RANK)).astype("f4")
    assert tensors, f"{weights} has no layer {TARGETS}"
    folder.mkdir(parents=True)
    save_file(tensors, folder / ADAPTER_FILE)
    settings = TrainableSettings(scope="lora", lora_rank=RANK, lora_alpha=ALPHA, lora_targets=TARGETS)
    (folder / "config.json").write_text(json.dumps(settings.model_dump()))
    return folder
