"""Frames that a server has made before the rest of their clip reach the video that is being encoded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from mora_data.reading.fitting import Clip
from mora_data.reading.timeline import Video
from mora_launch.checkpoints.adapter_catalog import AdapterCatalog
from mora_launch.serving.counters import Counters
from mora_launch.serving.feeding.server_adapters import ServerAdapters
from mora_launch.serving.feeding.server_worker import ServerWorker, _Batch
from mora_launch.serving.work_queue import Work, WorkQueue
from mora_launch.tasks.agents import Agents
from mora_launch.tasks.procedures import task_pieces
from mora_launch.tasks.request import TaskRequest
from mora_launch.tasks.stages import Unreviewed
from mora_runtime.process.role import Role
from mora_runtime.process.run_directory import RunDirectory

NUM_FRAMES, SIDE = 5, 8


def numbered(start: int, end: int) -> Clip:
    return np.repeat(np.arange(start, end, dtype=np.uint8), SIDE * SIDE * 3).reshape(-1, SIDE, SIDE, 3)


class PartialPool:
    """Every call sends its first frames early, some of them twice as after a server's death, then the whole clip."""

    counters = Counters()

    def __init__(self) -> None:
        self.num_made = 0

    def describe(self, capability: str) -> dict[str, Any]:
        return {"agent": "a", "model": "m", "height": SIDE, "width": SIDE, "num_frames": NUM_FRAMES}

    def capabilities(self) -> list[str]:
        return ["text_to_image", "image_to_image", "image_to_video", "extend_video"]

    def submit(
        self, capability: str, sample: dict[str, Any], shared: dict[str, Any], *rest: Any,
        on_part: Callable[[int, Clip], None] | None = None, **more: Any,
    ) -> Work:  # fmt: skip
        work = Work(capability, sample, shared)
        if capability.endswith("to_image"):
            work.finish(numbered(99, 100)[0])
            return work
        count = NUM_FRAMES - (capability == "extend_video")
        clip = numbered(self.num_made, self.num_made + count)
        self.num_made += count
        if on_part is not None:
            on_part(0, clip[:2])
            on_part(0, clip[:1])
            on_part(1, clip[1:4])
        work.finish(clip)
        return work


@pytest.mark.parametrize(
    ("task", "seconds", "early"),
    [
        ("text_to_video", None, [4]),
        ("text_to_video", 0.375, [3]),
        ("text_to_video", 1.0, [4, 3]),
        ("image_to_video", 1.25, [4, 4, 1]),
        ("extend", 0.5, [0, 4]),
        ("edit", None, [3]),
        ("connect", None, [0]),
    ],
)
def test_early_frames_are_those_with_which_the_next_piece_begins(
    task: str, seconds: float | None, early: list[int]
) -> None:
    video = Video(numbered(50, 53), 8.0)
    image = numbered(60, 61)[0] if task == "image_to_video" else None
    videos = {"extend": (video,), "edit": (video,), "connect": (video, video)}.get(task, ())
    request = TaskRequest(task, "a cat", 1, 8.0, image, videos, seconds, strength=0.5, enhance=False)
    got: list[Clip] = []
    pool: Any = PartialPool()
    prompts: Any = None
    agents = Agents(pool, prompts, sampling={}, deadline_s=5, on_frames=got.append)
    found = []
    for piece in task_pieces(request, agents, Unreviewed(1)):
        before = np.concatenate([*got, numbered(0, 0)])
        assert np.array_equal(before, piece[: len(before)])
        found.append(len(before))
        got.clear()
    assert [count for count in found if count] == [count for count in early if count]


def test_the_worker_hands_the_parts_of_each_sample_to_its_work(tmp_path: Path) -> None:
    got: list[list[tuple[int, Clip]]] = [[], []]
    works = [
        Work("image_to_video", {"prompts": "a", "seeds": n}, {}, on_part=lambda *part, own=own: own.append(part))
        for n, own in enumerate(got)
    ]
    frames = torch.full((2, SIDE, SIDE, 3), 7, dtype=torch.uint8)
    parts = [
        {"sample": 1, "start": 0, "outputs": frames},
        {"sample": 2, "start": 0, "outputs": frames},  # of no sample
        {"sample": True, "start": None, "outputs": frames},
        {"sample": 0, "start": 4, "outputs": frames},
    ]
    pending: Any = SimpleNamespace(take_parts=lambda: parts)
    record: Any = None
    with RunDirectory.create(tmp_path / "run") as directory:
        worker = ServerWorker(
            Role("video.0"), directory, WorkQueue({}), Counters(), allowed=["image_to_video"],
            adapters=ServerAdapters("video", AdapterCatalog(), None), arena_nbytes=1 << 20, deadline_s=5.0,
        )  # fmt: skip
        worker._hand_parts_over(_Batch(works, pending, None, record))
    assert [[start for start, _ in own] for own in got] == [[4], [0]]
    assert all(np.array_equal(clip, frames.numpy()) for own in got for _, clip in own)
