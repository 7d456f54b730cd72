"""The process in which an environment fetches: `python -m PACKAGE fetch`. It ends with the launcher."""

from __future__ import annotations

import json
import subprocess
import threading
from collections import deque
from collections.abc import Sequence
from typing import IO, Any

from mora_environment.weights.fetch_answer import FetchAnswer, RefusedFetch
from mora_runtime.errors import EndpointFailed, EnvironmentFailed
from mora_runtime.files.foreign_json import parse_json
from mora_runtime.files.shown_text import shown_line
from mora_runtime.schema import read_settings
from rich.console import Console

from mora_launch.environments.environment import Environment
from mora_launch.environments.venvs import ROOT
from mora_launch.limits import MAX_ANSWER_NBYTES

_PROGRESS_MARK = "fetch: "
_NUM_LAST_LINES = 3
_MAX_LINE_LENGTH = 300
_END_DEADLINE_S = 10.0


def ask_to_fetch(
    environment: Environment, agents: Sequence[dict[str, Any]], console: Console, *, download: bool
) -> FetchAnswer:
    """Have an environment fetch what some of its agents load, and print its progress.

    Args:
        agents: kind, options, source and weights of each, as in the check of options.
        download: False only asks what there is to fetch.

    Raises:
        EndpointFailed: the environment's message: the Hub refuses, a file is damaged, the disk is full.
        EnvironmentFailed: its command failed.
    """
    command = [str(environment.python), "-m", environment.package, "fetch"]
    request = {"agents": list(agents), "download": download, "ends_with_input": True}
    said: deque[str] = deque(maxlen=_NUM_LAST_LINES)
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace",
        cwd=ROOT,
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        teller = threading.Thread(target=_tell, args=(process.stderr, said, console), name="tells progress")
        teller.start()
        try:
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
            output = process.stdout.read(MAX_ANSWER_NBYTES + 1)
        except BrokenPipeError:
            output = ""
        finally:
            _end(process)
            teller.join()
    return _answer(environment, output, said, process.returncode)


def _tell(lines: IO[str], said: deque[str], console: Console) -> None:
    for line in lines:
        if line.startswith(_PROGRESS_MARK):
            console.print(f"  {shown_line(line.removeprefix(_PROGRESS_MARK), _MAX_LINE_LENGTH)}", markup=False)
        else:
            said.append(shown_line(line, _MAX_LINE_LENGTH))


def _end(process: subprocess.Popen[str]) -> None:
    """Wait for the end of a process that has answered; one that was interrupted ends because its input closes."""
    try:
        assert process.stdin is not None
        process.stdin.close()
    except BrokenPipeError:
        pass  # it has ended already
    try:
        process.wait(_END_DEADLINE_S)
    except subprocess.TimeoutExpired:
        process.kill()


def _answer(environment: Environment, output: str, said: Sequence[str], code: int) -> FetchAnswer:
    asked = f"environment {environment.name}: `python -m {environment.package} fetch`"
    try:
        content = parse_json(output.encode())
    except ValueError:
        told = "; ".join(said) or "it said nothing"
        raise EnvironmentFailed(f"{asked}: expected JSON, but it ended with {code}: {told}") from None
    if isinstance(content, dict) and "error" in content:
        raise EndpointFailed(read_settings(RefusedFetch, content, source=asked).error)
    return read_settings(FetchAnswer, content, source=asked)
