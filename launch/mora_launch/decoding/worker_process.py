"""The front's end of one decoder process: starts it when needed, kills it when a job takes too long or is cancelled."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import time

from mora_runtime.errors import Cancelled
from pydantic import ValidationError

from mora_launch.decoding import wire
from mora_launch.decoding.job import Decoded, DecodeJob
from mora_launch.limits import AFTER_DEADLINE_S
from mora_launch.tasks.errors import BadRequest

_TICK_S = 0.05
_END_S = 5.0
_PASSED_ON = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PYTHONPATH")
_PASSED_ON_PREFIXES = ("OPENBLAS_", "MKL_")


class WorkerProcess:
    """One decoder, for use by one thread that lives as long: the process dies with the thread that started it."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._link: socket.socket | None = None

    @property
    def pid(self) -> int | None:
        """Process id, or None if no process runs."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start the process unless it runs."""
        if self._process is not None and self._process.poll() is None:
            return
        self.kill()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "mora_launch.decoding.worker", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,  # libraries print complaints about their input there
                start_new_session=True,
            )
        self._link = ours

    def decode(self, job: DecodeJob) -> Decoded:
        """Return the job's frames.

        Raises:
            BadRequest: the content cannot be decoded, or not within the limits.
            Cancelled: the job was cancelled meanwhile.
        """
        self.start()
        try:
            return self._decode(job)
        except (BadRequest, MemoryError):
            raise
        except BaseException:
            self.kill()  # its work is not needed, or it cannot be trusted
            raise

    def _decode(self, job: DecodeJob) -> Decoded:
        assert self._link is not None
        order = wire.Order(kind=job.kind, whose=job.whose, size=job.size, max_frames=job.max_frames)
        content = wire.sealed_file("content", [job.content])
        try:
            wire.send(self._link, order, content)
            self._await(job)
            answer, handles = wire.receive(self._link)
        except (OSError, EOFError):
            self.kill()
            raise BadRequest(job.whose, "cannot be decoded: the decoder crashed on it") from None
        finally:
            os.close(content)
        try:
            return _result(job, answer, handles)
        finally:
            for handle in handles:
                os.close(handle)

    def _await(self, job: DecodeJob) -> None:
        assert self._link is not None
        poller = select.poll()
        poller.register(self._link, select.POLLIN)
        deadline = time.monotonic() + job.deadline_s + AFTER_DEADLINE_S
        while not poller.poll(_TICK_S * 1000):
            if job.cancelled.is_set():
                raise Cancelled("the client has disconnected")
            if time.monotonic() > deadline:
                self.kill()
                raise BadRequest(job.whose, f"was not decoded within {job.deadline_s:g} s; make it smaller")

    def kill(self) -> None:
        """Kill the process."""
        if self._link is not None:
            self._link.close()
            self._link = None
        if self._process is not None:
            self._process.kill()
            self._process.wait(_END_S)
            self._process = None


def _result(job: DecodeJob, content: dict[str, object], handles: list[int]) -> Decoded:
    """Return the frames of an answer. Raises: BadRequest: a refusal. ValueError: not a valid answer."""
    try:
        answer = wire.DecodeAnswer.model_validate(content)
    except ValidationError as error:
        raise ValueError(f"a decoder's answer has {error.error_count()} wrong fields") from None
    if answer.refused is not None:
        raise BadRequest(job.whose, answer.refused.removeprefix(f"{job.whose}: "))
    if len(handles) != 1:
        raise ValueError("a decoder answered without frames")
    return wire.frames_of(answer, handles[0], job.kind)


def _environment() -> dict[str, str]:
    """Return the decoder's environment variables, without keys and tokens of the front."""
    kept = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    kept |= {name: value for name, value in os.environ.items() if name.startswith(_PASSED_ON_PREFIXES)}
    return {**kept, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
