"""`mora serve`: servers that stay up, behind HTTP."""

from __future__ import annotations

import os
import secrets
import time
from pathlib import Path

import uvicorn
from mora_runtime.errors import SettingsError
from mora_runtime.logs import start_logging
from mora_runtime.run_directory import RunDirectory
from rich.console import Console

from mora_launch.config import TrainConfig
from mora_launch.environments import ROOT
from mora_launch.run_status import StatusWriter
from mora_launch.serving.http.app import make_app
from mora_launch.serving.running_servers import RunningServers
from mora_launch.web.listening import bound, is_loopback, names_of

_GRACE_S = 10


def serve(
    config: TrainConfig, *, host: str, port: int, run: Path | None, token_file: Path | None, console: Console
) -> int:
    """Serve until Ctrl-C or SIGTERM. Returns 0.

    Raises:
        MoraError: refused before anything started, or a server could not start.
    """
    path = run or ROOT / "runs" / f"serve-{config.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    with (
        bound(host, port) as address,  # before models are loaded for nothing
        RunDirectory.create(path, lock=True) as directory,
        StatusWriter(path, "serve") as status,
    ):
        start_logging(directory, role="front", generation=1)
        token = _token(host, token_file, directory)
        with RunningServers(config, directory, console, status) as servers:
            app = make_app(servers.pool, config, directory.path / "videos", token=token, hosts=names_of(host))
            settings = uvicorn.Config(
                app, log_config=None, log_level="warning", timeout_graceful_shutdown=_GRACE_S, access_log=False
            )
            server = uvicorn.Server(settings)
            console.print(f"serving http://{host}:{port}  run {directory.path}", markup=False)
            if token is not None:
                console.print(f"requests need the token in {token_file or directory.path / 'token'}", markup=False)
            server.run(sockets=[address])
    return 0


def _token(host: str, token_file: Path | None, directory: RunDirectory) -> str | None:
    """The token that requests must bear: of the file, or outside loopback a new one in the run directory."""
    if token_file is not None:
        try:
            token = token_file.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise SettingsError(f"--token-file {token_file}: cannot be read: {error.strerror}") from None
        if len(token) < 16:
            raise SettingsError(f"--token-file {token_file}: expected at least 16 characters, got {len(token)}")
        return token
    if is_loopback(host):
        return None
    token = secrets.token_urlsafe(32)
    handle = os.open(directory.path / "token", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(token)
    return token
