"""`mora serve`: keeps servers running behind HTTP."""

from __future__ import annotations

from pathlib import Path

from mora_runtime.process.logs import start_logging
from mora_runtime.process.run_directory import RunDirectory
from rich.console import Console

from mora_launch.config.train_config import TrainConfig
from mora_launch.jobs.machine import check_machine
from mora_launch.jobs.run_path import made_run, new_path
from mora_launch.jobs.run_status import StatusWriter
from mora_launch.serving.http.app import make_app
from mora_launch.serving.running_servers import RunningServers
from mora_launch.web.access import Access
from mora_launch.web.http_server import http_server, tell_address
from mora_launch.web.listening import bound, url_of
from mora_launch.web.token import read_token

_GRACE_S = 10


def serve(
    config: TrainConfig, *, host: str, port: int, run: Path | None, token_file: Path | None, console: Console
) -> int:
    """Serve until Ctrl-C or SIGTERM; return 0.

    Raises:
        MoraError: the configuration or address was refused, or a server could not start.
    """
    check_machine()
    given = None if token_file is None else read_token(token_file)
    path = run or new_path(f"serve-{config.name}")
    with (
        bound(host, port) as address,  # fails before any model is loaded
        RunDirectory.create(made_run(run, path), lock=True) as directory,
        StatusWriter(directory.path, "serve") as status,
    ):
        start_logging(directory, role="front", generation=1)
        access = Access.at(host, given, directory.path)
        with RunningServers(config, directory, console, status) as servers:
            server = http_server(make_app(servers.pool, config, directory.path, access), grace_s=_GRACE_S)
            tell_address(console, "serving", url_of(host, port), access, directory.path, token_file)
            server.run(sockets=[address])
    return 0
