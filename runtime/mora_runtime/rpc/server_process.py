"""The body of a server process, from its settings to its exit code. Called by each environment's entry point."""

from __future__ import annotations

import gc
import logging
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn, TypeVar

import torch

from mora_runtime.errors import DeviceLost, MoraError
from mora_runtime.process import faults
from mora_runtime.process.logs import start_logging
from mora_runtime.process.run_directory import RunDirectory
from mora_runtime.process.supervisor_link import SupervisorLink
from mora_runtime.rpc.agent import Agent, ModuleAgent
from mora_runtime.rpc.gpu_kernels import choose_kernels
from mora_runtime.rpc.server import Server
from mora_runtime.rpc.server_device import ServerDevice
from mora_runtime.rpc.server_settings import ServerSettings
from mora_runtime.rpc.session import Session
from mora_runtime.rpc.torch_trace import profiler_agents
from mora_runtime.trace import tracing

log = logging.getLogger(__name__)
SettingsT = TypeVar("SettingsT", bound=ServerSettings)


def serve(settings: SettingsT, build: Callable[[SettingsT], Mapping[str, Agent]]) -> int:
    """Run a server process: build the agents, report ready, serve until asked to stop.

    Args:
        build: loads the agents; an exception is reported to the launcher in one line and ends the process.

    Returns:
        Exit code: 0 after an orderly stop, 1 when building or the server itself failed.
    """
    link = SupervisorLink(settings.supervisor_fd)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the launcher handles Ctrl-C
    signal.signal(signal.SIGTERM, lambda number, frame: link.request_stop())
    run = RunDirectory.open(settings.run_dir)  # type: ignore[arg-type]
    start_logging(run, role=settings.role, generation=settings.generation)
    faults.arm(settings.role, run.path)
    if settings.trace is not None:
        tracing.start(Path(settings.trace), settings.role)
    try:
        with choose_kernels(settings):
            return _serve(settings, build, run, link)
    except DeviceLost as error:
        log.exception("the device failed")
        link.failed(str(error), is_recoverable=True)
        tracing.stop()
        logging.shutdown()
        os._exit(1)  # an orderly exit would wait for the device: CUDA and NCCL clean up what they have there
    finally:
        tracing.stop()


def host(**modules: torch.nn.Module | Agent) -> NoReturn:
    """Serve modules, by name, to the process that started this script with `spawn`; exits when serving ends.

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
        ServerDevice.of(settings).make_current()
        if settings.device_pool_nbytes:
            session.share_device(settings.device, settings.device_pool_nbytes)
        agents = {**build(settings), **profiler_agents()}
    except Exception as error:
        # model libraries raise any class while loading: one line for the terminal, the traceback for the log
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
    gc.freeze()  # model libraries' million objects live as long as the server; later collections skip them
    link.ready()
    log.info("serving %s", ", ".join(agents))
    try:
        server.serve()
    except DeviceLost:
        raise
    except Exception as error:
        # a fault of the server itself, never of a call: the launcher must not wait for answers
        log.exception("the server failed with an internal error")
        link.failed(f"failed with an internal error: {type(error).__name__}: {error}", is_recoverable=True)
        return 1
    server.close()
    session.close()
    return 0


def _open_session(run: RunDirectory, settings: ServerSettings) -> Session:
    """Set cores and threads, then open the session: so the arena's pages are on the memory node of these cores."""
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
