"""The keys in which a configuration differs from the one of a run, and which of them may differ."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from mora_runtime.errors import SettingsError
from mora_runtime.files.shown_text import shown_line

from mora_launch.config.train_config import TrainConfig

_MAY_DIFFER = (
    # steps, checkpoints, rates
    "training.num_steps", "training.checkpoint_every", "training.keep_checkpoints", "training.schedule",
    "training.num_warmup_steps", "agents.*.learning_rate", "agents.*.modulation_learning_rate",
    # deadlines and restarts
    "training.call_deadline_s", "start_deadline_s", "restarts.*", "faults",
    # the machine: where roles run, and how much memory they get
    "agents.*.devices", "agents.*.num_threads", "agents.*.arena_nbytes", "agents.*.activation_nbytes",
    "agents.*.attention", "pin_cores", "shared_memory_nbytes", "spill_nbytes", "device_tensors", "environments.*",
    # what has no effect on training
    "name", "samples.*", "serving.*", "synthesis.*", "evaluation.*",
)  # fmt: skip
_ABSENT = object()
_MAX_VALUE_LENGTH = 60
_MAX_NUM_KEYS = 12  # that an error lists


class Difference(NamedTuple):
    """One key that differs."""

    key: str
    before: Any
    now: Any

    @property
    def may_differ(self) -> bool:
        """Whether a run can be continued with another value."""
        return any(fnmatch.fnmatchcase(self.key, pattern) for pattern in _MAY_DIFFER)

    def __str__(self) -> str:
        return f"{self.key}: {_shown(self.before)} -> {_shown(self.now)}"


def differences(before: TrainConfig, now: TrainConfig) -> list[Difference]:
    """Return the keys in which two configurations differ, in the order of the configuration."""
    return list(_differences(before.model_dump(mode="json"), now.model_dump(mode="json"), ""))


def check_differences(found: list[Difference], run: object) -> None:
    """Refuse differences that would make the run another one.

    Raises:
        SettingsError: lists them, with the value of the run first.
    """
    refused = [each for each in found if not each.may_differ]
    if not refused:
        return
    shown = "\n".join(f"  {each}" for each in refused[:_MAX_NUM_KEYS])
    more = f"\n  and {len(refused) - _MAX_NUM_KEYS} more" if len(refused) > _MAX_NUM_KEYS else ""
    raise SettingsError(
        f"{run} was started with other values (the run's -> yours):\n{shown}{more}\nA run continues with its own: "
        f"leave CONFIG out (`./mora train --resume --run {run}`) and give only what may change (steps, checkpoints, "
        "rates, deadlines, devices), or start another run"
    )


def _differences(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str) -> Iterator[Difference]:
    """An agent or section that only one of them has is one difference."""
    for name in dict.fromkeys((*before, *now)):
        old, new = before.get(name, _ABSENT), now.get(name, _ABSENT)
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _differences(old, new, f"{prefix}{name}.")
        elif old != new:
            yield Difference(prefix + name, old, new)


def _shown(value: Any) -> str:
    return "not set" if value is _ABSENT else shown_line(json.dumps(value), _MAX_VALUE_LENGTH)
