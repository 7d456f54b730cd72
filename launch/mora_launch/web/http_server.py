"""The HTTP server of `mora serve` and `mora review --web`."""

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
    """Return a server for plain HTTP/1.1, whose log a client cannot fill.

    Args:
        grace_s: time for requests in progress when the server stops.
    """
    logging.getLogger("uvicorn.error").addFilter(RareWarnings())
    gc.freeze()  # objects that exist now live until the end: garbage collection need not look at them again
    return uvicorn.Server(
        uvicorn.Config(
            app,
            http=HttpConnection,
            ws="none",
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,  # a client's own claim about its address is ignored
            timeout_graceful_shutdown=grace_s,
        )
    )


def tell_address(
    console: Console, what: str, url: str, access: Access, run: Path, token_file: Path | None = None
) -> None:
    """Print the address of a server, and the link for clients that need the token.

    Args:
        token_file: the user's token file; its token is not printed.
    """
    console.print(f"{what} {url}  run {run}", markup=False)
    if token_file is not None:
        console.print(f"every client needs the token in {token_file}; the page asks for it", markup=False)
        return
    who = "all clients" if access.uid is None else "other users of this machine"
    console.print(f"for {who}: {url}/page?token={access.token}", markup=False)
