"""Keys of earlier configurations, replaced by those that say the same today, so that old files keep working."""

from __future__ import annotations

from typing import Any

_LOSS_WEIGHT = "_loss_weight"


def replace_old_keys(content: dict[str, Any]) -> list[str]:
    """Replace the old keys in a configuration's content; return one line for each, which says by what."""
    return [*_scope(content), *_loss_weight(content)]


def _scope(content: dict[str, Any]) -> list[str]:
    """`scope: joint`, or `<agent>_only`."""
    if "scope" not in content:
        return []
    scope = content.pop("scope")
    if scope == "joint":
        return ["`scope: joint` is the default now: leave it out"]
    if not isinstance(scope, str) or not scope.endswith("_only"):
        content["scope"] = scope  # refused as an unknown key
        return []
    agent = scope.removesuffix("_only")
    content["trains"] = [agent]
    return [f"`scope: {scope}` is `trains: [{agent}]` now"]


def _loss_weight(content: dict[str, Any]) -> list[str]:
    """`training.<agent>_loss_weight`, of an agent before the last one, whose loss always counted fully."""
    training, agents = content.get("training"), content.get("agents")
    if not isinstance(training, dict) or not isinstance(agents, dict):
        return []
    key = next((f"{name}{_LOSS_WEIGHT}" for name in agents if f"{name}{_LOSS_WEIGHT}" in training), None)
    if key is None:
        return []
    weight = training.pop(key)
    if weight == 0:
        return [f"`training.{key}: 0` is the default now: leave it out"]
    agent, last = key.removesuffix(_LOSS_WEIGHT), list(agents)[-1]
    content["losses"] = {agent: weight, last: 1.0}
    return [f"`training.{key}: {weight}` is `losses: {{{agent}: {weight}, {last}: 1.0}}` now"]
