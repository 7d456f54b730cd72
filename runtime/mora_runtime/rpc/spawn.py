"""Servers without a launcher: another interpreter runs a script and hosts its modules for this process.

All servers that a process spawns share one run, in a temporary folder, so tensors pass between them by reference. Each
server ends with this process, even if it is killed; a server's death raises an error at the next call. The folder of a
killed process is removed by the next process that spawns.
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import json
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mora_runtime.errors import ConfigurationError, RunLocked
from mora_runtime.process.background_watch import BackgroundWatch
from mora_runtime.process.role import Role
from mora_runtime.process.role_process import RoleProcess
from mora_runtime.process.run_directory import RunDirectory
from mora_runtime.process.supervisor import Supervisor
from mora_runtime.rpc.client import Client
from mora_runtime.rpc.pending import Reply
from mora_runtime.rpc.remote_module import RemoteModule
from mora_runtime.rpc.session import Session

START_DEADLINE_S = 120.0  # the first import of torch from a cold disk takes most of a minute
CALL_DEADLINE_S = 600.0
_END_DEADLINE_S = 5.0
_PREFIX = "mora-spawn-"


class SpawnedServer:
    """A server in another interpreter, and the connection to it. A context manager; leaving it ends the server."""

    def __init__(self, run: _SpawnRun, process: RoleProcess, client: Client) -> None:
        self._run = run
        self._process = process
        self._is_open = True
        self.client = client

    @property
    def pid(self) -> int:
        """Process id of the server."""
        return self._process.process.pid

    def module(self, name: str, *, deadline_s: float = CALL_DEADLINE_S) -> RemoteModule:
        """One of the modules that the script hosts; autograd treats it like a local module."""
        return RemoteModule(self.client, name, deadline_s=deadline_s)

    def step(self, name: str, lr: float, *, deadline_s: float = CALL_DEADLINE_S) -> None:
        """Step a hosted module's optimizer with its accumulated gradients, then clear them."""
        self.client.call(name, "step", {"lr": lr}, deadline_s=deadline_s)

    def call(self, name: str, method: str, /, *, deadline_s: float = CALL_DEADLINE_S, **arguments: Any) -> Reply:
        """Call a method of a hosted agent and wait for its values."""
        return self.client.call(name, method, arguments, deadline_s=deadline_s)

    def close(self) -> None:
        """End the server; does nothing if it has already been ended."""
        if self._is_open:
            self._is_open = False
            self._run.end(self._process, self.client)

    def __enter__(self) -> SpawnedServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def spawn(
    python: str | os.PathLike[str],
    script: str | os.PathLike[str],
    *,
    variables: Mapping[str, str] | None = None,
    num_threads: int = 1,
    deadline_s: float = START_DEADLINE_S,
) -> SpawnedServer:
    """Run a script that calls `host` with another interpreter, and connect to it.

    Call it in a thread that lives as long as the server: the kernel kills a server when its starting thread ends.

    Args:
        python: interpreter of an environment with `mora_runtime`; its other packages, even torch, may differ.
        script: called with `--settings FILE --supervisor-fd N`; it prints to this process's output.
        variables: environment variables in addition to this process's own.
        num_threads: of torch in the server.
        deadline_s: for the script to import its packages, make its modules and call `host`.

    Raises:
        RoleFailed: the script ended before it served, or was not ready in time.
        ProtocolError: its `mora_runtime` has another protocol version.
    """
    run = _shared_run()
    try:
        return run.start(Path(python), Path(script), variables or {}, num_threads, deadline_s)
    except BaseException:
        run.end_if_unused()
        raise


class _SpawnRun:
    """The run that all servers of this process share: its folder, its session, its supervisor."""

    def __init__(self) -> None:
        self.is_ended = False
        self._lock = threading.RLock()
        self._numbers = itertools.count()
        self._stack = contextlib.ExitStack()
        _remove_stale_folders()
        folder = tempfile.mkdtemp(prefix=_PREFIX)
        self._stack.callback(shutil.rmtree, folder, ignore_errors=True)
        self._directory = self._stack.enter_context(RunDirectory.create(Path(folder), lock=True))
        self._supervisor = self._stack.enter_context(Supervisor(lambda _: None, takes_signals=False))
        self._watch = BackgroundWatch(self._supervisor)
        self._session: Session | None = None
        self._living: list[RoleProcess] = []
        atexit.register(self._end)

    def start(
        self, python: Path, script: Path, variables: Mapping[str, str], num_threads: int, deadline_s: float
    ) -> SpawnedServer:
        with self._lock, self._supervised():
            role = Role.of("spawned", next(self._numbers))
            settings = {
                "role": role, "name": role.name, "replica": role.replica, "run_dir": str(self._directory.path),
                "num_threads": num_threads,
            }  # fmt: skip
            path = self._directory.role_folder(role) / "settings.json"
            path.write_text(json.dumps(settings), encoding="utf-8")
            process = self._supervisor.start(
                role, [str(python.absolute()), str(script.absolute()), "--settings", str(path)],
                variables={"OMP_NUM_THREADS": str(num_threads), **variables}, output=None, folder=Path.cwd(),
            )  # fmt: skip
            self._living.append(process)
            try:
                self._supervisor.wait_ready([process], deadline_s=deadline_s)
                client = self._opened().connect(role, deadline_s=deadline_s)
            except BaseException:
                self._discard(process)
                raise
            return SpawnedServer(self, process, client)

    def _opened(self) -> Session:
        if self._session is None:
            self._session = self._stack.enter_context(Session.open(self._directory, f"spawner-{os.getpid()}"))
        return self._session

    @contextlib.contextmanager
    def _supervised(self) -> Iterator[None]:
        """Stop the background watch during the block, because only one thread may use the supervisor."""
        self._watch.stop()
        try:
            yield
        finally:
            if not self.is_ended:
                self._watch.start()

    def end(self, process: RoleProcess, client: Client) -> None:
        with self._lock:
            client.close()
            with self._supervised():
                self._discard(process)
            self.end_if_unused()

    def _discard(self, process: RoleProcess) -> None:
        self._living.remove(process)
        process.ask_to_stop()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.process.wait(_END_DEADLINE_S)
        self._supervisor.discard([process])

    def end_if_unused(self) -> None:
        with self._lock:
            if not self._living:
                self._end()

    def _end(self) -> None:
        with self._lock:
            if self.is_ended:
                return
            self.is_ended = True
            atexit.unregister(self._end)
            self._watch.stop()
            self._stack.close()


def _remove_stale_folders() -> None:
    """Remove the folders of this user's killed processes, whose locks are free."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        try:
            if folder.lstat().st_uid == os.getuid() and not folder.is_symlink():
                RunDirectory.create(folder, lock=True).close()
                shutil.rmtree(folder, ignore_errors=True)
        except (RunLocked, ConfigurationError, OSError):
            continue  # in use, or not a run


_run: _SpawnRun | None = None
_making = threading.Lock()


def _shared_run() -> _SpawnRun:
    global _run
    with _making:
        if _run is None or _run.is_ended:
            _run = _SpawnRun()
        return _run
