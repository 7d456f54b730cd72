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

from mora_launch.pulse import Pulse

_LOG_TAIL_NUM_LINES = 12


class Child:
    """A started role.

    The supervisor socket carries `{"event": "ready"}`, `{"event": "failed", "error": ..., "is_recoverable": ...}` and
    `{"event": "beat", "vitals": {...}}` up, `go` and `stop` down; its end-of-file tells either side that the other is
    gone.
    `pidfd` becomes readable when the process has ended, even where something that it started still holds the socket.

    Args:
        role: image.0, coordinator.1, ...
        generation: how many times the job has begun anew, counted from 1.
        frozen_after_s: without a sign of life; None = never looked at.
        command: program and arguments; `--supervisor-fd N` is appended.
        output: file that takes stdout and stderr; None lets the role write to the terminal.
    """

    def __init__(
        self,
        role: str,
        command: Sequence[str],
        *,
        variables: Mapping[str, str],
        output: Path | None,
        folder: Path,
        generation: int = 1,
        frozen_after_s: float | None = None,
    ) -> None:
        self.role = role
        self.generation = generation
        self.output = output
        self.is_ready = False
        self.error: str | None = None
        self.vitals: dict[str, Any] = {}  # of the last heartbeat
        self._frozen: str | None = None
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
            self.pidfd = os.pidfd_open(self.process.pid)
            self.pulse = Pulse(self.process.pid, frozen_after_s) if frozen_after_s is not None else None
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
        if event.get("event") == "beat":
            self.vitals = event.get("vitals", {})
            if self.pulse is not None:
                self.pulse.beat()
        elif event.get("event") == "ready":
            self.is_ready = True
            if self.pulse is not None:
                self.pulse.beat()  # it is looked at from now on
        elif event.get("event") == "failed":
            self.error = str(event.get("error"))
            self._may_recover = event.get("is_recoverable") is True

    def let_go(self) -> None:
        """Send `go`: all that the child needs is there now."""
        self._tell(b"go\n")

    def ask_to_stop(self) -> None:
        """Send `stop`; the child ends by itself at its next safe point."""
        self._tell(b"stop\n")

    def _tell(self, word: bytes) -> None:
        try:
            self.link.send(word)
        except (BrokenPipeError, ConnectionResetError):
            return  # already gone, which is noticed elsewhere

    def kill_if_frozen(self) -> bool:
        """Kill it where it has given no sign of life for too long; whoever loads models may take its time."""
        if self.pulse is None or not self.is_ready or self._frozen is not None:
            return False
        self._frozen = self.pulse.find_frozen()
        if self._frozen is None:
            return False
        self.kill()
        return True

    def close(self) -> None:
        """Give back what the launcher holds of a child that has ended."""
        self.link.close()
        os.close(self.pidfd)

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
        if self._frozen is not None:
            return f"{self._frozen} and was killed"
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
