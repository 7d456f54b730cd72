"""`mora serve`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from mora_launch.cli.options import (
    FILE,
    changes_option,
    checkpoint_option,
    config_argument,
    console,
    run_option,
    with_checkpoint,
)


@click.command(epilog="Example: ./mora serve configs/shapes.yaml --port 8000")
@config_argument
@changes_option
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(1, 65535), help="Port to listen on.")
@click.option(
    "--token-file",
    type=FILE,
    help="File with a token, or with lines of NAME TOKEN; every client then needs one.  [default: a new token, which "
    "you do not need on this machine]",
)
@click.option(
    "--shutdown-timeout",
    "shutdown_timeout_s",
    default=30.0,
    show_default=True,
    type=click.FloatRange(0),
    metavar="S",
    help="Seconds that accepted work has to end after SIGTERM or Ctrl-C.",
)
@click.option(
    "--trace",
    type=FILE,
    help="File for a trace of all processes, such as trace.json.gz, for ui.perfetto.dev; written at the end.",
)
@checkpoint_option
@run_option
def serve(
    config: Path, changes: tuple[str, ...], host: str, port: int, token_file: Path | None, shutdown_timeout_s: float,
    trace: Path | None, checkpoint: str | None, run: Path | None,
) -> None:  # fmt: skip
    """Serve the models over HTTP and on a web page.

    The endpoints are those of OpenAI for images and videos.
    """
    from mora_launch.config.train_config import load_config
    from mora_launch.serving.command import serve as run_serve

    loaded = load_config(config, with_checkpoint(changes, checkpoint))
    code = run_serve(
        loaded, host=host, port=port, run=run, token_file=token_file, shutdown_timeout_s=shutdown_timeout_s,
        trace=trace, console=console,
    )  # fmt: skip
    sys.exit(code)
