"""One child process of a job: a server or a coordinator, with the socket that ties its life to the launcher's."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_LOG_TAIL_NUM_LINES = 12


class Child:
    """A started role.

    The supervisor socket carries `{"event": "ready"}` or `{"event": "failed", "error": ..., "is_recoverable": ...}` up
    and `stop` down; its end-of-file tells either side that the other is gone.

    Args:
        role: image.0, coordinator.1, ...
        command: program and arguments; `--supervisor-fd N` is appended.
        output: file that takes stdout and stderr; None lets the role write to the terminal.
    """

    def __init__(
        self, role: str, command: Sequence[str], *, variables: Mapping[str, str], output: Path | None, folder: Path
    ) -> None:
        self.role = role
        self.output = output
        self.is_ready = False
        self.error: str | None = None
        self._may_recover = False
        self._received = b""
        self.link, theirs = socket.socketpair()
        self.link.setblocking(False)
        sink = None if output is None else open(output, "wb")  # noqa: SIM115 - closed below, once the child has it
        try:
            # An own session: the terminal's Ctrl-C reaches the launcher alone, which then decides for all.
            self.process = subprocess.Popen(
                [*command, "--supervisor-fd", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env={**os.environ, **variables},
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                start_new_session=True,
                cwd=folder,
            )
        finally:
            theirs.close()
            if sink is not None:
                sink.close()

    def receive(self) -> bool:
        """Take in what the child sent; False at end-of-file, when the child is gone or going."""
        try:
            data = self.link.recv(65536)
        except BlockingIOError:
            return True
        except ConnectionResetError:
            return False
        self._received += data
        *lines, self._received = self._received.split(b"\n")
        for line in lines:
            self._take_event(json.loads(line))
        return bool(data)

    def _take_event(self, event: dict[str, Any]) -> None:
        if event.get("event") == "ready":
            self.is_ready = True
        elif event.get("event") == "failed":
            self.error = str(event.get("error"))
            self._may_recover = event.get("is_recoverable") is True

    def ask_to_stop(self) -> None:
        """Send `stop`; the child ends by itself at its next safe point."""
        try:
            self.link.send(b"stop\n")
        except (BrokenPipeError, ConnectionResetError):
            return  # already gone, which is what was asked for

    def kill(self) -> None:
        """Kill the child and everything it started."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return  # already gone

    @property
    def was_killed(self) -> bool:
        """True where it ended by a signal, without a word."""
        code = self.process.returncode
        return self.error is None and code is not None and code < 0

    @property
    def is_recoverable(self) -> bool:
        """Of one that has ended: whether it could go on when started again."""
        return self.was_killed or self._may_recover

    def exit_cause(self) -> str:
        """One line: how the process ended."""
        code = self.process.poll()
        if self.error is not None:
            return self.error
        if code is None:
            return "closed its link to the launcher but still runs"
        if code < 0:
            return f"was killed by {signal.Signals(-code).name}"
        return f"ended by itself with exit code {code}"

    def log_tail(self) -> str:
        """Last lines that the role wrote, for an error message; empty where there are none."""
        if self.output is None or not self.output.exists():
            return ""
        lines = self.output.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return "\n".join(f"    {line}" for line in lines[-_LOG_TAIL_NUM_LINES:])
