"""Makes the measurements of a plan: decodes each video once, and gives it to all metrics at the same time."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from mora_runtime.errors import BadArgument, DatasetError, DeadlineExceeded, MoraError, PeerDied, ProtocolError
from mora_runtime.files.shown_text import shown_line

from mora_launch.evaluation.measuring.decoded_video import DecodedVideo, Decoder, VideoTooLarge
from mora_launch.evaluation.measuring.feature_plan import kept_frames
from mora_launch.evaluation.measuring.metric_servers import MetricServer, MetricServers
from mora_launch.evaluation.measuring.plan import Plan, Task, VideoTasks
from mora_launch.evaluation.measuring.result import Result
from mora_launch.evaluation.measuring.result_store import ResultStore
from mora_launch.evaluation.settings import EvaluationSettings
from mora_launch.evaluation.suite.dimensions import FEATURES
from mora_launch.limits import CONTROL_DEADLINE_S, MAX_NUM_RUNS

_MAX_WHY_LENGTH = 300


@dataclass(frozen=True)
class Failure:
    """A measurement that was not made: no property of the video, so the next start tries it again."""

    file: str
    dimension: str
    why: str


@dataclass
class _Open:
    """A decoded video, in memory that all servers read, until its last measurement has ended."""

    frames: Any
    fps: float
    nbytes: int
    waiting: list[Task]
    num_running: int = 0


@dataclass
class _Running:
    """A measurement that a server is making."""

    task: Task
    video: _Open
    started_s: float


class Measurements:
    """Runs a plan to its end. Results go to the store as they are made; order and number of servers change none.

    Args:
        on_done: called after each measurement with the result, or the failure.
    """

    def __init__(
        self,
        plan: Plan,
        servers: MetricServers,
        store: ResultStore,
        settings: EvaluationSettings,
        on_done: Callable[[Result | Failure], None],
    ) -> None:
        self._servers = servers
        self._store = store
        self._settings = settings
        self._on_done = on_done
        self._todo = deque(plan.todo)
        self._decoding: deque[tuple[VideoTasks, Future[DecodedVideo]]] = deque()
        self._open: list[_Open] = []
        self._running: dict[str, _Running] = {}  # by role
        metrics = {server.metric for server in servers.servers}
        self._num_ahead = 1 + max((len(servers.of(name)) for name in metrics), default=1)

    def run(self) -> None:
        """Make all measurements.

        Raises:
            KeyboardInterrupt: the user asked to stop; every result so far is stored.
            StorageError: a result cannot be stored.
        """
        with Decoder(self._settings.max_video_nbytes, self._servers.wake) as decoder:
            self._lose_dead(self._servers.look())
            while self._todo or self._decoding or self._open:
                self._decode_ahead(decoder)
                self._take_decoded()
                self._fail_lost()
                self._submit()
                self._lose_dead(self._servers.wait())
                self._collect()

    def _decode_ahead(self, decoder: Decoder) -> None:
        """Keep so many videos decoded that no server waits for one."""
        while self._todo and len(self._decoding) + len(self._open) < self._num_ahead and self._has_room():
            video = self._todo.popleft()
            self._decoding.append((video, decoder.submit(video.file.path)))

    def _has_room(self) -> bool:
        """Whether one more video fits, however large it may be."""
        open_nbytes = sum(video.nbytes for video in self._open)
        coming_nbytes = (len(self._decoding) + 1) * self._settings.max_video_nbytes
        return open_nbytes + coming_nbytes <= self._settings.max_decoded_nbytes or not (self._open or self._decoding)

    def _take_decoded(self) -> None:
        while self._decoding and self._decoding[0][1].done():
            video, future = self._decoding.popleft()
            try:
                decoded = future.result()
            except VideoTooLarge as error:
                for task in video.tasks:
                    self._fail(task, str(error))
                continue
            except DatasetError as error:
                for task in video.tasks:
                    self._refuse(task, str(error).removeprefix(f"{video.file.path}: "))
                continue
            self._open.append(self._shared(video, decoded))

    def _shared(self, video: VideoTasks, decoded: DecodedVideo) -> _Open:
        """Copy the frames into memory that servers read."""
        import torch

        shape = (len(decoded.frames), *decoded.frames[0].shape)
        frames = self._servers.empty_frames(shape)
        for number, frame in enumerate(decoded.frames):
            frames[number].copy_(torch.from_numpy(frame if frame.flags.writeable else frame.copy()))
        return _Open(frames, decoded.fps, math.prod(shape), list(video.tasks))

    def _fail_lost(self) -> None:
        """Give up what only servers could measure that run no more."""
        for video in self._open:
            for task in [each for each in video.waiting if not self._servers.of(each.metric)]:
                video.waiting.remove(task)
                self._fail(task, self._servers.lost.get(task.metric, f"{task.metric} has no server"))
        self._close_done()

    def _submit(self) -> None:
        """Give every idle server the first video that waits for its metric."""
        for server in self._servers.servers:
            if not server.is_idle:
                continue
            found = next(
                ((video, task) for video in self._open for task in video.waiting if task.metric == server.metric), None
            )
            if found is not None:
                self._start(server, *found)

    def _start(self, server: MetricServer, video: _Open, task: Task) -> None:
        assert server.client is not None
        video.waiting.remove(task)
        method, arguments = _call(task, video)
        try:
            server.pending = server.client.submit(
                server.metric, method, arguments, deadline_s=self._settings.deadline_s
            )
        except PeerDied:
            video.waiting.insert(0, task)  # nothing was sent; the death is noticed by the next look
            return
        except MoraError as error:
            self._fail(task, str(error))
            return
        video.num_running += 1
        self._running[server.role] = _Running(task, video, time.monotonic())

    def _collect(self) -> None:
        """Take the answers that have arrived."""
        for server in self._servers.servers:
            if server.pending is None or not server.pending.has_ended or server.role not in self._running:
                continue
            pending, server.pending = server.pending, None
            running = self._running.pop(server.role)
            running.video.num_running -= 1
            try:
                values = pending.result().values
                self._add(running, numbers_of(values, running.task))
                if server.client is not None:
                    server.client.flush()  # the server may reuse the memory of its answer
            except PeerDied:
                self._again(running.task, running.video, server)
            except BadArgument as error:
                self._refuse(running.task, str(error).removeprefix(f"{server.role}: "), running)
            except MoraError as error:
                if server.client is not None and isinstance(error, DeadlineExceeded):
                    server.client.cancel(pending, CONTROL_DEADLINE_S)  # a late answer is not read
                self._fail(running.task, f"{server.metric}: {error}")
        self._close_done()

    def _lose_dead(self, dead: list[MetricServer]) -> None:
        for server in dead:
            running = self._running.pop(server.role, None)
            if running is not None:
                running.video.num_running -= 1
                self._again(running.task, running.video, server)

    def _again(self, task: Task, video: _Open, server: MetricServer) -> None:
        """Measure once more after a server's death; a second one may be the video's fault."""
        task.num_runs += 1
        if task.num_runs < MAX_NUM_RUNS:
            video.waiting.insert(0, task)
        else:
            self._fail(task, f"{server.metric}: its server died {MAX_NUM_RUNS} times while it measured this video")

    def _close_done(self) -> None:
        self._open = [video for video in self._open if video.waiting or video.num_running]

    def _add(self, running: _Running, numbers: Mapping[str, Any]) -> None:
        frames = running.video.frames
        details = {name: value for name, value in numbers.items() if name not in ("score", "weight")}
        self._store_result(
            Result(
                running.task.file.name, running.task.key, running.task.metric, running.task.settings,
                score=numbers.get("score"), weight=numbers.get("weight", 1.0), details=details, num_frames=len(frames),
                height=int(frames.shape[1]), width=int(frames.shape[2]), fps=float(running.video.fps),
                seconds=round(time.monotonic() - running.started_s, 3),
            )
        )  # fmt: skip

    def _refuse(self, task: Task, why: str, running: _Running | None = None) -> None:
        shape = (0, 0, 0) if running is None else tuple(running.video.frames.shape[:3])
        self._store_result(
            Result(
                task.file.name, task.key, task.metric, task.settings, refused=_one_line(why), num_frames=shape[0],
                height=shape[1], width=shape[2], fps=0.0 if running is None else float(running.video.fps),
            )
        )  # fmt: skip

    def _store_result(self, result: Result) -> None:
        self._store.add(result)
        self._on_done(result)

    def _fail(self, task: Task, why: str) -> None:
        self._on_done(Failure(task.file.name, task.key.dimension, _one_line(why)))


def _call(task: Task, video: _Open) -> tuple[str, dict[str, Any]]:
    """The method of a task and its arguments."""
    if task.key.dimension == FEATURES:
        return "features", {"frames": video.frames[kept_frames(task.settings, len(video.frames), video.fps)]}
    return "measure", {
        "dimension": task.key.dimension, "frames": video.frames, "fps": float(video.fps),
        "prompt": task.settings.get("prompt", ""), "words": task.settings.get("words", ""),
    }  # fmt: skip


def numbers_of(values: Mapping[str, Any], task: Task) -> dict[str, Any]:
    """Return the numbers of an answer of `measure`: floats, and nested lists of floats from tensors.

    Raises:
        BadArgument: a number is NaN or infinite, so the video has no score.
        ProtocolError: score or weight is missing, which only features lack; a value is no number, or the weight is
            not above 0.
    """
    numbers = {name: _number(value) for name, value in values.items()}
    what = f"{task.metric}.measure of {task.key.dimension}"
    for name in () if task.key.dimension == FEATURES else ("score", "weight"):
        if not isinstance(numbers.get(name), float):
            raise ProtocolError(f"{what}: expected a number `{name}`, got {sorted(values)}")
    for name, number in numbers.items():
        if not _are_numbers(number):
            raise ProtocolError(f"{what}: expected numbers as `{name}`, got {type(number).__name__}")
        if not _is_finite(number):
            raise BadArgument(f"{what}: `{name}` is not finite")
    if numbers.get("weight", 1.0) <= 0.0:
        raise ProtocolError(f"{what}: expected a weight above 0, got {numbers['weight']}")
    return numbers


def _number(value: Any) -> Any:
    from mora_runtime.tensors.tensor_store import TensorRef

    if isinstance(value, TensorRef):
        return value.tensor().double().tolist()
    return float(value) if isinstance(value, int | float) else value


def _are_numbers(number: Any) -> bool:
    return all(map(_are_numbers, number)) if isinstance(number, list) else isinstance(number, float)


def _is_finite(number: Any) -> bool:
    return all(map(_is_finite, number)) if isinstance(number, list) else math.isfinite(number)


def _one_line(text: str) -> str:
    return shown_line(" ".join(text.split()), _MAX_WHY_LENGTH)
