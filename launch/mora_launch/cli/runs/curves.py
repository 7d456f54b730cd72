"""`mora curves`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from mora_launch.cli.options import newest_run_argument


@click.command(epilog="Example: ./mora curves --port 6007")
@newest_run_argument
@click.option("--port", type=click.IntRange(1, 65535), default=6006, show_default=True, help="Of TensorBoard.")
def curves(run: Path | None, port: int) -> None:
    """Show the curves of RUN in TensorBoard until Ctrl-C (default: the newest run that has curves).

    RUN may also be a folder of runs, which are then shown together.
    """
    from mora_launch.jobs.registry.curves import folder_with_curves

    folder = folder_with_curves(run)
    os.execv(sys.executable, [sys.executable, "-m", "tensorboard.main", "--logdir", str(folder), "--port", str(port)])
