"""The terms of a request: its tenant, and the fields `priority`, `lora` and `model`, which may name adapters."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from fastapi import Request

from mora_launch.limits import MAX_PRIORITY
from mora_launch.serving.http.front import CHAIN_MODEL, Front
from mora_launch.serving.http.requests.fields import RequestFields
from mora_launch.serving.terms import LoraChoice, Terms
from mora_launch.tasks.errors import BadRequest
from mora_launch.web.access import TENANT

_NAMES, _SCALES = ("name", "lora_name", "adapter"), ("scale", "lora_scale")  # of vLLM-Omni's object, as is the next
_IGNORED = ("int_id", "lora_int_id")


def tenant_of(request: Request) -> str:
    """Return the tenant of a request; empty if the application has no access rules."""
    return request.scope.get(TENANT) or ""


def terms_of(request: Request, fields: RequestFields, front: Front, capabilities: Collection[str] = ()) -> Terms:
    """Return the terms of a request.

    Args:
        capabilities: that it may use; empty = all.

    Raises:
        BadRequest: the priority is out of its bounds, or the adapters are unknown or for other agents.
    """
    priority = fields.integer("priority") or 0
    if abs(priority) > MAX_PRIORITY:
        raise BadRequest("priority", f"expected {-MAX_PRIORITY} to {MAX_PRIORITY}, got {priority}")
    lora = _lora(fields, front)
    if lora is not None:
        front.pool.adapters.check(lora, front.pool.agents_of(capabilities))
    return Terms(tenant=tenant_of(request), priority=priority, lora=lora)


def _lora(fields: RequestFields, front: Front) -> LoraChoice | None:
    """Return the adapters that `lora` or `model` names. Raises: BadRequest: both do, or an object is wrong."""
    given, (base, _, named) = fields.anything("lora"), (fields.text("model") or "").partition(":")
    choice = _choice(given) if given not in (None, "") else None
    if base != CHAIN_MODEL or not named or named not in front.pool.adapters.names:
        return choice  # a model that does not exist is refused where its name is checked
    if choice is not None and choice.name != named:
        raise BadRequest("lora", f"names `{choice.name[:60]}` and model names `{named}`; give one of them")
    return choice or LoraChoice(name=named)


def _choice(given: Any) -> LoraChoice:
    if isinstance(given, str):
        return LoraChoice(name=given)
    if not isinstance(given, dict):
        raise BadRequest("lora", f"expected a name or an object with `name` and `scale`, got {type(given).__name__}")
    for key in given:
        if key not in (*_NAMES, *_SCALES, *_IGNORED):
            told = "; a server takes names alone, which /v1/models lists" if "path" in key else ""
            raise BadRequest("lora", f"unknown field `{key[:60]}`; expected `name` and `scale`{told}")
    name = next((given[key] for key in _NAMES if given.get(key) is not None), None)
    scale = next((given[key] for key in _SCALES if given.get(key) is not None), 1.0)
    if not isinstance(name, str) or not name:
        raise BadRequest("lora", f"expected a text as `name`, got {type(name).__name__}")
    number = RequestFields({"lora": scale}, {}).number("lora")  # a form has it as text
    if number is None or not 0 <= number <= 1:
        raise BadRequest("lora", f"expected a `scale` of 0 to 1, got {str(scale)[:20]}")
    return LoraChoice(name=name, scale=number)
