"""Checks of the methods that answer with keys, rows or noise."""

from __future__ import annotations

from typing import Any

import torch

from mora_environment.conformance.outcome import CheckFailed, expect
from mora_environment.conformance.subject import PROMPTS, Subject
from mora_environment.promised_methods import promises_of


def _called(subject: Subject, method: str, **arguments: Any) -> dict[str, Any]:
    promise = next(each for each in promises_of(subject.interface) if each.method == method)
    return subject.call(promise, {**subject.arguments(promise), **arguments})


def _tensor(returned: dict[str, Any], name: str) -> torch.Tensor:
    found = returned.get(name)
    if not isinstance(found, torch.Tensor):
        raise CheckFailed(f"expected a tensor `{name}`, got {type(found).__name__}")
    return found


def prompts_have_keys(subject: Subject) -> str:
    """One key for each prompt; the same prompt has the same key, also after the text encoder was unloaded."""
    first: Any = _called(subject, "encode", prompts=list(PROMPTS)).get("keys")
    is_list = isinstance(first, list) and all(isinstance(key, str) for key in first)
    expect(is_list and len(first) == len(PROMPTS), f"expected `keys`, {len(PROMPTS)} texts, got {first!r}")
    expect(first[0] != first[1], f"expected other keys for other prompts, got {first}")
    _called(subject, "unload_text_encoder")
    again = _called(subject, "encode", prompts=[PROMPTS[1], PROMPTS[0]])["keys"]
    expect(again == first[::-1], f"expected the same keys for the same prompts, got {first}, then {again[::-1]}")
    return ""


def rows_start_z(subject: Subject) -> str:
    """`rows` are float32 (rows, d)."""
    rows = _tensor(_called(subject, "modulation_rows"), "rows")
    fits = rows.dtype == torch.float32 and rows.ndim == 2 and rows.numel() > 0
    expect(fits, f"rows: expected float32 (rows, d), got {rows.dtype} {tuple(rows.shape)}")
    expect(bool(rows.isfinite().all()), "rows: expected finite numbers")
    return f"{tuple(rows.shape)}"


def seeds_have_noise(subject: Subject) -> str:
    """`noise` is float32, the same for the same seed."""
    first, again, other = (_tensor(_called(subject, "initial_noise", seed=seed), "noise") for seed in (3, 3, 4))
    expect(first.dtype == torch.float32, f"noise: expected float32, got {first.dtype}")
    expect(torch.equal(first, again), "expected the same noise for the same seed")
    expect(not torch.equal(first, other), "expected other noise for another seed")
    return f"{tuple(first.shape)}"


def clips_have_keys(subject: Subject) -> str:
    """The same clip has the same key, and the agent keeps a copy of what it needs."""
    pixels = subject.clip(0)
    first = _called(subject, "store_target", pixels=pixels).get("key")
    expect(isinstance(first, str), f"expected a text `key`, got {type(first).__name__}")
    pixels.zero_()  # the caller's memory is used again
    again = _called(subject, "store_target", pixels=subject.clip(0))["key"]
    expect(again == first, f"expected the same key for the same clip, got {first}, then {again}")
    other = _called(subject, "store_target", pixels=subject.clip(1))["key"]
    expect(other != first, f"expected other keys for other clips, got {first} twice")
    return ""
