"""Runs from a stranger: whole at first, then changed by a test."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mora_runtime.files.durable_files import describe, write_text

FOLDER = "step-00000008"
WEIGHTS = "image/weights/diffusion_pytorch_model.safetensors"
FILES = (WEIGHTS, "image/weights/config.json", "image/optimizer-00000-of-00001.safetensors")


class StrangeRun:
    """A run with one committed checkpoint."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.root = self.checkpoints / FOLDER
        for name in FILES:
            write_text(self.root / name, f"content of {name}")
        manifest: dict[str, Any] = {
            "format": 1,
            "step": 8,
            "folder": FOLDER,
            "num_replicas": 1,
            "lock_hashes": {"control": "x"},
            "files": [asdict(describe(self.root / name, self.root)) for name in FILES],
        }
        write_text(self.root / "manifest.json", json.dumps(manifest))
        write_text(self.checkpoints / "COMMITTED", json.dumps({"step": 8, "folder": FOLDER}))

    def change(self, change: Callable[[dict[str, Any]], object]) -> None:
        """Rewrite the manifest."""
        path = self.root / "manifest.json"
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    def add(self, name: str, real: Path) -> None:
        """Name one more file in the manifest, with size and hash of `real`."""
        entry = {**asdict(describe(real, real.parent)), "path": name}
        self.change(lambda content: content["files"].append(entry))
