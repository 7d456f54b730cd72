"""Watching role processes in a thread while the main thread does other work."""

from __future__ import annotations

import threading

from mora_runtime.errors import RoleFailed
from mora_runtime.process.supervisor import Supervisor

_LOOK_EVERY_S = 0.5
_STOP_DEADLINE_S = 60.0  # a killed process may take a while to give its memory back


class BackgroundWatch:
    """Reads heartbeats, kills frozen role processes and collects exit codes.

    It restarts nothing: the main thread stops the watch and then checks the exit codes. While the watch runs, no other
    thread may use the supervisor.
    """

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None

    def start(self) -> None:
        """Start watching; does nothing if already started."""
        if self._thread is not None:
            return
        self._ending.clear()
        self._thread = threading.Thread(target=self._watch, name="watches in the background", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop watching at once; does nothing if not started.

        Raises:
            Exception: an error that ended the watch early; the role processes have not been watched since.
        """
        if self._thread is None:
            return
        self._ending.set()
        self._supervisor.wake()
        self._thread.join(_STOP_DEADLINE_S)
        if self._thread.is_alive():
            raise RoleFailed(f"the thread that watches the processes did not stop within {_STOP_DEADLINE_S:.0f} s")
        self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _watch(self) -> None:
        try:
            while not self._ending.is_set():
                self._supervisor.look(timeout_s=_LOOK_EVERY_S)
        except Exception as error:  # a fault of the launcher; `stop` raises it in the main thread
            self._error = error
