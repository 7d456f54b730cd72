"""`mora status` and `mora stop`: show and stop a run from another process."""

from __future__ import annotations

import os
import select
import signal
import time
from pathlib import Path
from typing import Any

from mora_runtime.errors import ConfigurationError, DeadlineExceeded
from mora_runtime.process.role_messages import Vitals
from mora_runtime.process.run_directory import lock_holder
from mora_trainer.checkpoint.commit_record import committed
from rich.console import Console
from rich.table import Table

from mora_launch.environments.venvs import ROOT
from mora_launch.jobs.registry.live_runs import live_runs
from mora_launch.jobs.run_status import STATUS_FILE, UNFINISHED, RoleStatus, RunStatus, read_status
from mora_launch.terminal import format_nbytes, write_json

_SECOND_AFTER_S = 1.0


def find_run(run: Path | None) -> Path:
    """Return the given run; without one that which is alive, anywhere, and only if none is, the newest in `runs/`.

    The newest is the one whose status was written last.

    Raises:
        ConfigurationError: no run was given, none is alive, and `runs/` has none.
    """
    if run is not None:
        return run
    alive = [path / STATUS_FILE for path in live_runs()]
    found = [path for path in alive if path.is_file()] or list((ROOT / "runs").glob(f"*/{STATUS_FILE}"))
    if not found:
        raise ConfigurationError(f"no run is alive, and none is in {ROOT / 'runs'}; give the directory of a run")
    return max(found, key=lambda path: path.stat().st_mtime).parent


def find_run_to_stop(run: Path | None) -> Path:
    """Return the given run; without one the only one that is alive, else the newest in `runs/`.

    Raises:
        ConfigurationError: as for `find_run`; also if several are alive, because the wrong one must not be stopped.
    """
    alive = live_runs()
    if run is None and len(alive) > 1:
        raise ConfigurationError(f"{len(alive)} runs are alive; name the one to stop: {', '.join(map(str, alive))}")
    return find_run(run)


def true_state(run: Path, status: RunStatus) -> str:
    """Return the state of the status, or `killed` if the launcher died without recording an end."""
    return "killed" if status.state in UNFINISHED and lock_holder(run) is None else status.state


def _shown_state(state: str, status: RunStatus) -> str:
    """Return the true state in words."""
    if state == "stopping" and status.stops_by_ts is not None:
        return f"stopping, {max(0.0, status.stops_by_ts - time.time()):.0f} s left"
    return "loading" if state == "starting" and status.command == "serve" else state


def show_all(console: Console, *, as_json: bool) -> None:
    """Print the status of every run that is alive."""
    runs = live_runs()
    if as_json:
        write_json(console, [_as_json(run) for run in runs])
        return
    for number, run in enumerate(runs):
        if number:
            console.print()
        show_status(run, console, as_json=False)
    if not runs:
        console.print("no run is alive")


def _as_json(run: Path) -> dict[str, Any]:
    status = read_status(run)
    more = {"run": str(run), "state": true_state(run, status), "committed_step": _committed_step(run)}
    return status.model_dump(mode="json") | more


def _committed_step(run: Path) -> int | None:
    info = committed(run / "checkpoints")
    return None if info is None else info.step


def show_status(run: Path, console: Console, *, as_json: bool) -> None:
    """Print a run's status.

    Raises:
        ConfigurationError: the directory is not a run.
    """
    if as_json:
        write_json(console, _as_json(run))
        return
    status = read_status(run)
    state = true_state(run, status)
    step = _committed_step(run)
    age_s = max(0.0, time.time() - status.written_ts)  # clocks may be set back
    trains = f"committed step {'none' if step is None else step}, " if status.command == "train" else ""
    console.print(
        f"{run}\n{status.command}: {_shown_state(state, status)}, generation {status.generation}, "
        f"launcher {status.launcher_pid}, {trains}written {age_s:.0f} s ago"
    )
    if state in UNFINISHED:
        console.print(_roles_table(status.roles))
    for incident in status.incidents:
        console.print(f"{_clock(incident.ts)}  {incident.cause.splitlines()[0]}; {incident.then}", markup=False)
    if status.cause:
        console.print(f"{_clock(status.written_ts)}  {status.cause}", markup=False)


def _roles_table(roles: list[RoleStatus]) -> Table:
    table = Table(
        "role", "gen", "pid", "state", "heartbeat", "doing", "memory", "shared", "leases", "files",
        box=None, pad_edge=False,
    )  # fmt: skip
    for role in roles:
        vitals = role.vitals
        heartbeat = "-" if role.last_life_ts is None else f"{max(0.0, time.time() - role.last_life_ts):.0f} s ago"
        table.add_row(
            role.role, str(role.generation), str(role.pid), role.state, heartbeat, _doing(role),
            _size(vitals, "rss_nbytes"), _size(vitals, "arena_nbytes"),
            str(vitals.get("num_leases", "-")), str(vitals.get("num_fds", "-")),
        )  # fmt: skip
    return table


def _size(vitals: Vitals, name: str) -> str:
    value = vitals.get(name)
    return format_nbytes(value if isinstance(value, int) else 0)


def _doing(role: RoleStatus) -> str:
    if "step" in role.vitals:
        return f"step {role.vitals['step']}"
    if role.vitals.get("busy"):
        return f"{role.vitals['busy']} for {role.vitals.get('busy_s', 0):.1f} s"
    return role.exit_cause or ("waiting for calls" if role.state == "ready" else "loading")


def _clock(ts: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(ts))


def stop_run(run: Path, console: Console, *, now: bool, timeout_s: float) -> None:
    """Ask a run's launcher to stop and wait until it has.

    Raises:
        DeadlineExceeded: it still runs after `timeout_s`.
    """
    pid = lock_holder(run)
    if pid is None:
        console.print(f"{run}: is not running")
        return
    try:
        launcher = os.pidfd_open(pid)
    except ProcessLookupError:
        console.print(f"{run}: has just ended")
        return
    try:
        for wait_s in (_SECOND_AFTER_S, timeout_s) if now else (timeout_s,):  # a second interrupt ends it immediately
            signal.pidfd_send_signal(launcher, signal.SIGINT)
            if select.select([launcher], [], [], wait_s)[0]:
                break
        else:
            raise DeadlineExceeded(
                f"{run}: process {pid} did not end within {timeout_s:.0f} s; raise --timeout if its steps are long, or "
                "use --now"
            )
    finally:
        os.close(launcher)
    console.print(f"{run}: stopped")
