"""The trace of a server: one file of all its processes, written when it ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mora_runtime.errors import SettingsError
from rich.console import Console

from mora_launch.jobs.servers import traces_folder
from mora_launch.profiling.merged_trace import write_merged_trace
from mora_launch.profiling.role_trace import read_role_traces


@contextmanager
def merged_trace(run: Path, output: Path | None, console: Console) -> Iterator[Path | None]:
    """Give the folder for the traces of all processes, and merge them after the block; without `output`, do nothing.

    Raises:
        SettingsError: the folder of `output` does not exist.
    """
    if output is None:
        yield None
        return
    if not output.parent.is_dir():
        raise SettingsError(f"--trace {output}: the folder {output.parent} does not exist; make it first")
    folder = traces_folder(run)
    try:
        yield folder
    finally:
        write_merged_trace(output, read_role_traces(folder), [])
        console.print(f"trace  {output} (open it in ui.perfetto.dev or chrome://tracing)", markup=False)
