"""Keys of earlier configurations, replaced by those that say the same today, so that old files keep working."""

from __future__ import annotations

from typing import Any


def replace_old_keys(content: dict[str, Any]) -> list[str]:
    """Replace the old keys in a configuration's content; return one line for each, which says by what."""
    return [*_scope(content), *_image_loss_weight(content)]


def _scope(content: dict[str, Any]) -> list[str]:
    if "scope" not in content:
        return []
    scope = content.pop("scope")
    if scope == "joint":
        return ["`scope: joint` is the default now: leave it out"]
    if not isinstance(scope, str) or not scope.endswith("_only"):
        content["scope"] = scope  # refused as an unknown key
        return []
    content["trains"] = [scope.removesuffix("_only")]
    return [f"`scope: {scope}` is `trains: {_listed(content['trains'])}` now"]


def _image_loss_weight(content: dict[str, Any]) -> list[str]:
    training = content.get("training")
    if not isinstance(training, dict) or "image_loss_weight" not in training:
        return []
    weight = training.pop("image_loss_weight")
    if weight == 0:
        return ["`training.image_loss_weight: 0` is the default now: leave it out"]
    agents = content.get("agents")
    last = list(agents)[-1] if isinstance(agents, dict) and agents else "video"
    content["losses"] = {"image": weight, last: 1.0}
    return [f"`training.image_loss_weight: {weight}` is `losses: {{image: {weight}, {last}: 1.0}}` now"]


def _listed(names: list[str]) -> str:
    return "[" + ", ".join(names) + "]"
