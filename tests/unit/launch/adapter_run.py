"""A run with LoRA adapters, written by hand."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from mora_launch.config.train_config import load_config
from mora_launch.environments.venvs import ROOT
from mora_runtime.files.durable_files import describe, write_text
from mora_training.training_settings import TrainableSettings
from safetensors.numpy import save

TINY = ROOT / "configs" / "tiny.yaml"
WEIGHTS = "diffusion_pytorch_model.safetensors"
ADAPTERS = "adapter_model.safetensors"


def write_checkpoint(run: Path, files: dict[str, bytes | str]) -> Path:
    """A run with one committed checkpoint of these files, and the tiny configuration."""
    folder = run / "checkpoints" / "step-00000004"
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    manifest = {
        "step": 4, "folder": folder.name, "num_replicas": 1, "lock_hashes": {},
        "files": [asdict(describe(folder / name, folder)) for name in files],
    }  # fmt: skip
    write_text(folder / "manifest.json", json.dumps(manifest))
    write_text(run / "checkpoints" / "COMMITTED", json.dumps({"step": 4, "folder": folder.name}))
    write_text(run / "config.json", json.dumps(load_config(TINY, []).model_dump(mode="json")))
    return run


def adapters_of(agent: str, **settings: Any) -> dict[str, bytes | str]:
    """The files of an agent with one adapted layer."""
    tensors = {"a.to_q.lora_A.weight": np.zeros((4, 3), "f4"), "a.to_q.lora_B.weight": np.zeros((3, 4), "f4")}
    content = TrainableSettings(scope="lora", lora_rank=4, lora_alpha=20.0).model_dump() | settings
    return {
        f"{agent}/{part}/{name}": data
        for part in ("weights", "ema")
        for name, data in ((ADAPTERS, save(tensors)), ("config.json", json.dumps(content)))
    }


def whole(agent: str) -> dict[str, bytes | str]:
    return {f"{agent}/weights/{WEIGHTS}": b"whole", f"{agent}/weights/config.json": "{}"}
