"""How many files the processes of a run may have open."""

from __future__ import annotations

import resource


def allow_open_files() -> None:
    """Let this process, and all that it starts, open as many files as the machine allows.

    A role without a free descriptor cannot take a peer's segments, and ZeroMQ aborts where it cannot accept a peer.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
