"""Serving an application on an address until it is told to stop; the same for `mora serve` and the page of reviews."""

from __future__ import annotations

import gc
import logging
from pathlib import Path

import uvicorn
from rich.console import Console

from mora_launch.web.access import Access
from mora_launch.web.asgi import App
from mora_launch.web.connection import HttpConnection
from mora_launch.web.rare_warnings import RareWarnings


def http_server(app: App, *, grace_s: int) -> uvicorn.Server:
    """A server of plain HTTP/1.1, whose log no client can fill.

    Args:
        grace_s: that requests under way have when it is told to stop.
    """
    logging.getLogger("uvicorn.error").addFilter(RareWarnings())
    gc.freeze()  # what is there now stays: collections while requests come look at the rest alone
    return uvicorn.Server(
        uvicorn.Config(
            app,
            http=HttpConnection,
            ws="none",
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,  # nothing here believes what a client says of its address
            timeout_graceful_shutdown=grace_s,
        )
    )


def tell_address(
    console: Console, what: str, url: str, access: Access, run: Path, token_file: Path | None = None
) -> None:
    """Say where a server is, and how others come in.

    Args:
        token_file: of the user, whose token is not shown.
    """
    console.print(f"{what} {url}  run {run}", markup=False)
    if token_file is not None:
        console.print(f"everybody needs the token in {token_file}; the page asks for it", markup=False)
        return
    who = "everybody" if access.uid is None else "other users of this machine"
    console.print(f"for {who}: {url}/page?token={access.token}", markup=False)
