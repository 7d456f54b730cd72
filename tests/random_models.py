"""Shipped configurations with random tiny models in place of pre-trained ones, which take minutes to make."""

from __future__ import annotations

from pathlib import Path

import yaml

CONFIGS = Path(__file__).resolve().parents[1] / "configs"


def with_random_models(name: str, folder: Path) -> Path:
    """Write a configuration of `configs/` whose tiny models are random, and return its path."""
    content = yaml.safe_load((CONFIGS / name).read_text(encoding="utf-8").replace("models/shapes/", "models/tiny/"))
    for agent in content["agents"].values():
        agent.pop("tiny_task", None)
    path = folder / name
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return path
