"""The life of a server process, from its settings to its exit code. Called by the entry of each environment."""

from __future__ import annotations

import gc
import logging
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn, TypeVar

import torch

from mora_runtime.errors import MoraError
from mora_runtime.process import faults
from mora_runtime.process.logs import start_logging
from mora_runtime.process.run_directory import RunDirectory
from mora_runtime.process.supervisor_link import SupervisorLink
from mora_runtime.rpc.agent import Agent, ModuleAgent
from mora_runtime.rpc.server import Server
from mora_runtime.rpc.server_settings import ServerSettings
from mora_runtime.rpc.session import Session
from mora_runtime.rpc.torch_trace import profiler_agents
from mora_runtime.trace import tracing

log = logging.getLogger(__name__)
SettingsT = TypeVar("SettingsT", bound=ServerSettings)


def serve(settings: SettingsT, build: Callable[[SettingsT], Mapping[str, Agent]]) -> int:
    """Body of a server process: build the agents, say ready, serve until asked to stop.

    Args:
        build: loads the agents; what it raises is told to the launcher in one line and ends the process.

    Returns:
        Exit code: 0 after an orderly stop, 1 when building or the server itself failed.
    """
    link = SupervisorLink(settings.supervisor_fd)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the launcher's to act on
    signal.signal(signal.SIGTERM, lambda number, frame: link.request_stop())
    run = RunDirectory.open(settings.run_dir)  # type: ignore[arg-type]
    start_logging(run, role=settings.role, generation=settings.generation)
    faults.arm(settings.role, run.path)
    if settings.trace is not None:
        tracing.start(Path(settings.trace), settings.role)
    try:
        return _serve(settings, build, run, link)
    finally:
        tracing.stop()


def host(**modules: torch.nn.Module | Agent) -> NoReturn:
    """Serve modules, by name, to the process that started this script with `spawn`; ends the process with it.

    Args:
        modules: a plain module becomes a `ModuleAgent`; an agent is served as it is.
    """
    agents = {name: each if isinstance(each, Agent) else ModuleAgent(each) for name, each in modules.items()}
    raise SystemExit(serve(ServerSettings.from_argv(), lambda _: agents))


def _serve(
    settings: SettingsT,
    build: Callable[[SettingsT], Mapping[str, Agent]],
    run: RunDirectory,
    link: SupervisorLink,
) -> int:
    session = _open_session(run, settings)
    try:
        agents = {**build(settings), **profiler_agents()}
    except Exception as error:
        # whatever a model library raises while loading: one line for the person, the traceback for the log
        log.exception("building the agents failed")
        link.failed(f"could not load its agents: {type(error).__name__}: {error}")
        return 1
    try:
        server = Server(session, settings, agents, link)
    except MoraError as error:
        link.failed(f"could not serve: {error}")
        return 1
    link.describe = server.vitals
    gc.collect()
    gc.freeze()  # a model library's million objects live as long as the server; no later collection need look at them
    link.ready()
    log.info("serving %s", ", ".join(agents))
    try:
        server.serve()
    except Exception as error:
        # a fault of this module, never of a call: the launcher ends the job rather than wait for answers
        log.exception("the server ended by a fault of its own")
        link.failed(f"ended by a fault of its own: {type(error).__name__}: {error}", is_recoverable=True)
        return 1
    server.close()
    session.close()
    return 0


def _open_session(run: RunDirectory, settings: ServerSettings) -> Session:
    """Threads and cores first: the arena's pages then lie on the memory node of the cores that use them."""
    if settings.cpu_affinity:
        os.sched_setaffinity(0, settings.cpu_affinity)
    torch.set_num_threads(settings.num_threads)
    torch.manual_seed(settings.seed)
    return Session.open(
        run,
        settings.role,
        settings.generation,
        arena_budget_nbytes=settings.arena_budget_nbytes,
        spill_budget_nbytes=settings.spill_budget_nbytes,
        warm_nbytes=settings.warm_nbytes,
        spin_ns=settings.spin_ns,
        heartbeat_timeout_s=settings.heartbeat_timeout_s,
    )
