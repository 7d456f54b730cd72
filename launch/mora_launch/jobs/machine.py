"""What the system must let the processes of every job do, checked before any of them starts."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator

from mora_runtime.errors import ConfigurationError, MemoryFilesForbidden
from mora_runtime.files.memory_file import memory_file

from mora_launch.jobs.finding import Finding
from mora_launch.limits import MIN_NUM_OPEN_FILES


def allow_open_files() -> None:
    """Let this process and its children open as many files as the machine allows.

    A role without a free descriptor cannot receive a peer's segments, and ZeroMQ aborts if it cannot accept a peer.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def check_machine() -> None:
    """Refuse to start processes that the system would stop later.

    Raises:
        ConfigurationError: says what the system does not allow, and what to change.
    """
    for finding in machine_findings():
        if finding.fix:
            raise ConfigurationError(f"{finding.what}; {finding.fix}")


def machine_findings() -> Iterator[Finding]:
    """Yield the result of each check."""
    num_files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]  # `allow_open_files` raises the other one to it
    yield Finding(
        f"open files allowed: {'any number' if num_files < 0 else num_files}",
        ""
        if num_files < 0 or num_files >= MIN_NUM_OPEN_FILES
        else f"a process of a job needs up to {MIN_NUM_OPEN_FILES}: raise the limit (`ulimit -Hn`, as root; of a "
        f"container: --ulimit nofile={MIN_NUM_OPEN_FILES})",
    )
    try:
        os.close(memory_file("mora-check"))
    except MemoryFilesForbidden as error:
        what, _, fix = str(error).partition("; ")
        yield Finding(what, fix)
    else:
        yield Finding("memory files (memfd_create): allowed")
