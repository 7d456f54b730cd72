"""`mora serve`: keeps servers running behind HTTP."""

from __future__ import annotations

import gc
from pathlib import Path

from fastapi import FastAPI
from mora_runtime.process.logs import start_logging
from mora_runtime.process.run_directory import RunDirectory
from rich.console import Console

from mora_launch.config.restarts import RestartSettings
from mora_launch.config.train_config import TrainConfig
from mora_launch.jobs.machine import check_machine
from mora_launch.jobs.run_path import made_run, new_path
from mora_launch.jobs.run_status import StatusWriter
from mora_launch.profiling.served_trace import merged_trace
from mora_launch.serving.http.app import make_app
from mora_launch.serving.life.drained import wait_drained
from mora_launch.serving.life.end_signals import EndSignals
from mora_launch.serving.life.http_thread import HttpThread
from mora_launch.serving.life.late_app import LateApp
from mora_launch.serving.life.service_manager import tell_manager
from mora_launch.serving.life.temporary_folder import ensure_temporary_folder
from mora_launch.serving.running_servers import RunningServers
from mora_launch.telemetry.recording import recording
from mora_launch.web.access import Access
from mora_launch.web.http_server import http_server, tell_address
from mora_launch.web.listening import bound, url_of
from mora_launch.web.token import read_tokens

_GRACE_S = 10.0  # for answers that are being sent when all work is done


def serve(
    config: TrainConfig,
    *,
    host: str,
    port: int,
    run: Path | None,
    token_file: Path | None,
    shutdown_timeout_s: float,
    trace: Path | None,
    console: Console,
) -> int:
    """Serve until Ctrl-C or SIGTERM, then wait for the work that was accepted; return 0.

    Args:
        shutdown_timeout_s: how long to wait for that work.
        trace: file for the trace of all processes, which is written at the end; None writes none.

    Raises:
        MoraError: the configuration or address was refused, or a server could not start.
        Interrupted: a signal before the models were loaded, or a second one.
    """
    check_machine()
    given = None if token_file is None else read_tokens(token_file)
    if trace is not None:
        # a restarted server would write over the trace of the one that died
        config = config.model_copy(update={"restarts": RestartSettings(max_num=0)})
    path = run or new_path(f"serve-{config.name}")
    with (
        bound(host, port) as address,  # fails before any model is loaded
        RunDirectory.create(made_run(run, path), lock=True) as directory,
        StatusWriter(directory.path, "serve") as status,
        EndSignals() as signals,
        merged_trace(directory.path, trace, console) as traces,
        recording(config.serving.tracing, traces, lambda line: console.print(line, markup=False, soft_wrap=True)),
    ):
        start_logging(directory, role="front", generation=1)
        ensure_temporary_folder(directory.path)
        access = Access.at(host, given, directory.path)
        late = LateApp(access)
        with HttpThread(http_server(late, grace_s=0), address, signals.wake) as http:
            servers = RunningServers(
                config, directory, console, status, takes_signals=False, traces=traces,
                on_watcher_death=lambda _: signals.wake(),
            )  # fmt: skip
            late.servers = servers.readiness
            with servers:
                app = make_app(servers.pool, config, directory.path, access)
                late.put(app)
                gc.freeze()  # objects that exist now live until the end: garbage collection need not look at them again
                tell_address(console, "serving", url_of(host, port), access, directory.path, token_file)
                _serve_to_the_end(app, servers, http, signals, status, shutdown_timeout_s, console)
    return 0


def _serve_to_the_end(
    app: FastAPI, servers: RunningServers, http: HttpThread, signals: EndSignals, status: StatusWriter,
    timeout_s: float, console: Console,
) -> None:  # fmt: skip
    """Wait for a signal, or for the death of what serves; then end the work, and after it the HTTP server."""
    front, jobs = app.state.front, app.state.jobs
    grace_s = 0.0
    try:
        signals.interrupts = False
        tell_manager("READY=1")
        while not signals.received and servers.death is None:
            http.check()
            signals.wait()
        tell_manager("STOPPING=1")
        if servers.death is None:
            status.stop_within(timeout_s)
            wait_drained(front, jobs, signals, timeout_s, console)
            grace_s = _GRACE_S
    finally:
        jobs.stop()  # first, so that what is not done counts as stopped
        servers.pool.close()
        http.stop(grace_s, is_urgent=lambda: len(signals.received) > 1)
