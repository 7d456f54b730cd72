"""A question to a program of another environment: bounded in time and in bytes, and nothing of it is left running."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from mora_runtime.errors import EnvironmentFailed

from mora_launch.limits import CHECK_DEADLINE_S, MAX_ANSWER_NBYTES

_CHUNK_NBYTES = 1 << 16


class Answer(NamedTuple):
    """What the program wrote; bytes that are not UTF-8 are replaced."""

    output: str
    complaints: str  # the end of its stderr
    returncode: int


def ask_program(
    command: Sequence[str],
    request: str,
    *,
    asked: str,
    folder: Path | None = None,
    deadline_s: float | None = None,
) -> Answer:
    """Run a program with `request` on its stdin and return its answer.

    Args:
        asked: who is asked, for errors.
        folder: where the program runs; default: the current folder.
        deadline_s: for its answer; default: that of a check of options.

    Raises:
        OSError: the program cannot be run.
        EnvironmentFailed: it gives no answer in time, or one that is too long.
    """
    wait_s = CHECK_DEADLINE_S if deadline_s is None else deadline_s
    with tempfile.TemporaryFile() as stdin:
        stdin.write(request.encode())
        stdin.seek(0)
        process = subprocess.Popen(
            command, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=folder, start_new_session=True
        )
    with process:
        try:
            return _answer(process, wait_s)
        except TimeoutError:
            raise EnvironmentFailed(f"{asked} gave no answer within {wait_s:.0f} s") from None
        except OverflowError:
            raise EnvironmentFailed(
                f"{asked}: expected an answer of at most {MAX_ANSWER_NBYTES} bytes, got more"
            ) from None
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # also what the program started


def _answer(process: subprocess.Popen[bytes], deadline_s: float) -> Answer:
    """Read both streams until the program has closed them, and wait for its end (TimeoutError, OverflowError)."""
    assert process.stdout is not None
    assert process.stderr is not None
    end_s = time.monotonic() + deadline_s
    output, complaints = bytearray(), bytearray()
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ, output)
        selector.register(process.stderr, selectors.EVENT_READ, complaints)
        while selector.get_map():
            for key, _ in selector.select(max(0.0, end_s - time.monotonic())):
                chunk = os.read(key.fd, _CHUNK_NBYTES)
                key.data.extend(chunk)
                if not chunk:
                    selector.unregister(key.fileobj)
            if time.monotonic() > end_s:
                raise TimeoutError
            del complaints[:-_CHUNK_NBYTES]
            if len(output) > MAX_ANSWER_NBYTES:
                raise OverflowError
    try:
        code = process.wait(max(0.0, end_s - time.monotonic()))
    except subprocess.TimeoutExpired:
        raise TimeoutError from None
    return Answer(output.decode(errors="replace"), complaints.decode(errors="replace"), code)
