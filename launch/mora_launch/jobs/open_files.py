"""The limit on open files of the processes of a run."""

from __future__ import annotations

import resource


def allow_open_files() -> None:
    """Let this process and its children open as many files as the machine allows.

    A role without a free descriptor cannot receive a peer's segments, and ZeroMQ aborts if it cannot accept a peer.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
