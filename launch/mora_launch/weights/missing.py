"""Refuses to start while weights are not on this machine: servers never download."""

from __future__ import annotations

from collections.abc import Iterable

from mora_runtime.errors import SettingsError

from mora_launch.environments.agent_options import CheckedOptions

_ADVICE = "run ./mora models fetch CONFIG"


def missing_lines(checked: Iterable[CheckedOptions]) -> list[str]:
    """Return one line for each repository of an agent that is not on this machine, with what to do."""
    return [f"{missing}: {_ADVICE}" for each in checked for missing in each.missing]


def refuse_missing(checked: Iterable[CheckedOptions]) -> None:
    """Raise SettingsError if weights of one of the agents are not on this machine."""
    lines = missing_lines(checked)
    if lines:
        raise SettingsError("\n".join(lines))
