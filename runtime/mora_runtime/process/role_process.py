"""One role process of a job, a server or a coordinator, and the launcher's end of the socket to it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from mora_runtime.files.foreign_file import open_foreign
from mora_runtime.files.shown_text import shown
from mora_runtime.process.liveness import LivenessProbe
from mora_runtime.process.role_messages import (
    GO,
    STOP,
    BadRoleMessage,
    Beat,
    Failed,
    Lines,
    RoleMessage,
    Vitals,
    decode,
)

_LOG_TAIL_NUM_LINES = 12
_LOG_TAIL_NBYTES = 64 << 10
_LOG_LINE_LENGTH = 1000


class RoleProcess:
    """A started role process.

    The supervisor socket carries the messages of `role_messages`; its end-of-file tells either side that the other has
    ended. A role process that sends anything else is faulty and is killed.
    `pidfd` becomes readable when the process has ended, even if a process that it started still has the socket open.

    Args:
        role: agent.0, coordinator.1, ...
        generation: 1 for the job's first set of processes, one more after each restart.
        frozen_after_s: kill it after so long without a sign of life; None = never.
        command: program and arguments; `--supervisor-fd N` is appended.
        output: file for stdout and stderr; None = the terminal.
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
        self.vitals: Vitals = {}  # of the last heartbeat
        self._fault: str | None = None  # why its last bytes were not a message
        self._frozen: str | None = None
        self._may_recover = False
        self._lines = Lines()
        self.link, theirs = socket.socketpair()
        self.link.setblocking(False)
        sink = None if output is None else open(output, "wb")  # noqa: SIM115 - closed below, once the role has it
        try:
            # A session of its own: the terminal's Ctrl-C reaches only the launcher, which then decides for all roles.
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
            self.pulse = LivenessProbe(self.process.pid, frozen_after_s) if frozen_after_s is not None else None
        finally:
            theirs.close()
            if sink is not None:
                sink.close()

    def receive(self) -> bool:
        """Handle the messages that have arrived; False at end-of-file, when the process has ended or is about to."""
        if self._fault is not None:
            return False
        try:
            data = self.link.recv(65536)
        except BlockingIOError:
            return True
        except OSError:
            return False
        try:
            for line in self._lines.take(data):
                self._take(decode(line))
        except BadRoleMessage as error:
            self._fault = str(error)
            self.kill()
            return False
        return bool(data)

    def _take(self, message: RoleMessage) -> None:
        if isinstance(message, Failed):
            self.error = message.error
            self._may_recover = message.is_recoverable
            return
        if isinstance(message, Beat):
            self.vitals = message.vitals
        else:
            self.is_ready = True
        if self.pulse is not None:
            self.pulse.beat()  # ready roles are checked for heartbeats from now on

    def let_go(self) -> None:
        """Send `go`: everything that the role needs is ready."""
        self._tell(GO)

    def ask_to_stop(self) -> None:
        """Send `stop`; the role ends by itself at its next safe point."""
        self._tell(STOP)

    def _tell(self, word: bytes) -> None:
        try:
            self.link.send(word + b"\n")
        except OSError:
            return  # it has ended or does not read; the supervisor notices either by itself

    def kill_if_frozen(self) -> bool:
        """Kill the process if it is ready and has given no sign of life for too long; loading has no limit here."""
        if self.pulse is None or not self.is_ready or self._frozen is not None:
            return False
        self._frozen = self.pulse.find_frozen()
        if self._frozen is None:
            return False
        self.kill()
        return True

    def close(self) -> None:
        """Close the launcher's descriptors of a process that has ended."""
        self.link.close()
        os.close(self.pidfd)

    def kill(self) -> None:
        """Kill the process and everything that it started."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return  # already ended

    @property
    def was_killed(self) -> bool:
        """True if it ended by a signal without reporting an error."""
        code = self.process.returncode
        return (self.error is None or self._fault is not None) and code is not None and code < 0

    @property
    def is_recoverable(self) -> bool:
        """After its end: True if starting it again could help."""
        return self.was_killed or self._may_recover

    def exit_cause(self) -> str:
        """One line: how the process ended."""
        code = self.process.poll()
        if self._fault is not None:
            return f"sent invalid bytes on its link to the launcher ({self._fault}) and was killed"
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
        """Last lines of the role's output, for an error message; empty if there are none."""
        if self.output is None:
            return ""
        try:
            with open(open_foreign(self.output), "rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - _LOG_TAIL_NBYTES))
                text = file.read(_LOG_TAIL_NBYTES).decode(errors="replace")
        except OSError:
            return ""
        lines = shown(text).strip().splitlines()[-_LOG_TAIL_NUM_LINES:]
        return "\n".join(f"    {line[:_LOG_LINE_LENGTH]}" for line in lines)
