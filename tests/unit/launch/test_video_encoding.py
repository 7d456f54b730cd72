"""The video of a job is encoded while later frames are made, and can be watched meanwhile."""

from __future__ import annotations

import asyncio
import io
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
import numpy as np
import pytest
from mora_data.reading.fitting import Clip, fitted
from mora_launch.serving.http.jobs.growing_file import GrowingFile
from mora_launch.serving.http.jobs.video_encoding import VideoEncoding
from mora_launch.tasks.media import encode
from mora_runtime.errors import Cancelled, EndpointFailed

METADATA = {"prompt": "a cat"}
PIECES = (5, 1, 0, 7)


def frames(count: int) -> Clip:
    return np.random.default_rng(count).integers(0, 256, (count, 16, 32, 3), dtype=np.uint8)


def encoding(
    path: Path, live: GrowingFile | None = None, is_cancelled: Callable[[], bool] = lambda: False
) -> VideoEncoding:
    return VideoEncoding(path, (16, 32), 8.0, path.suffix[1:], None, METADATA, live=live, is_cancelled=is_cancelled)


def num_frames(content: bytes) -> int:
    with av.open(io.BytesIO(content)) as container:
        return sum(1 for _ in container.decode(video=0))


@pytest.mark.parametrize("kind", ["mp4", "webm", "gif"])
def test_a_video_in_pieces_has_the_bytes_of_the_whole_one(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"made.{kind}"
    with encoding(path, GrowingFile(tmp_path / "live.mp4")) as made:
        for count in PIECES:
            made.append(frames(count))
    whole = np.concatenate([frames(count) for count in PIECES])
    assert path.read_bytes() == encode(whole, 8.0, kind, METADATA)
    assert made.num_frames == len(whole)
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_frames_that_come_early_are_not_written_twice(tmp_path: Path) -> None:
    path, pieces = tmp_path / "made.mp4", [frames(9), frames(4), frames(6)]
    with encoding(path) as made:
        for piece, num_early in zip(pieces, (5, 0, 6), strict=True):
            made.append_early(piece[: num_early // 2])
            made.append_early(piece[num_early // 2 : num_early])
            made.append(piece)
    assert path.read_bytes() == encode(np.concatenate(pieces), 8.0, "mp4", METADATA)
    assert made.num_frames == 19


def test_frames_are_scaled_to_the_size_of_the_video(tmp_path: Path) -> None:
    path = tmp_path / "made.mp4"
    with VideoEncoding(
        path, (8, 8), 8.0, "mp4", None, METADATA, live=None, is_cancelled=lambda: False
    ) as made:  # fmt: skip
        made.append(frames(3))
    assert path.read_bytes() == encode(fitted(frames(3), 8, 8), 8.0, "mp4", METADATA)


async def begun(live: GrowingFile) -> None:
    while not live.has_content:
        await asyncio.sleep(0.01)


def test_frames_can_be_watched_before_the_next_are_made(tmp_path: Path) -> None:
    live, watched = GrowingFile(tmp_path / "live.mp4"), threading.Event()

    def make() -> None:
        with encoding(tmp_path / "made.mp4", live) as made:
            made.append(frames(5))
            assert watched.wait(60)
            made.append(frames(7))

    async def watch() -> bytes:
        content = b""
        await begun(live)
        async for chunk in live.chunks():
            content += chunk
            if num_frames(content) >= 4:  # a frame is shown when the next one is there
                watched.set()
        return content

    with ThreadPoolExecutor() as pool:
        making = pool.submit(make)
        assert num_frames(asyncio.run(asyncio.wait_for(watch(), 60))) == 12
        making.result(60)


def test_a_viewer_of_a_video_that_fails_is_told(tmp_path: Path) -> None:
    live = GrowingFile(tmp_path / "live.mp4")

    async def watch() -> int:
        num_nbytes = 0
        try:
            async for chunk in live.chunks():
                num_nbytes += len(chunk)
        except EndpointFailed:
            return num_nbytes
        raise AssertionError("the video looks whole")

    async def make_and_watch() -> int:
        with pytest.raises(ZeroDivisionError), encoding(tmp_path / "made.mp4", live) as made:  # noqa: PT012
            made.append(frames(5))
            await begun(live)
            watching = asyncio.create_task(watch())
            await asyncio.sleep(0)  # the viewer has opened the file
            raise ZeroDivisionError
        return await watching

    assert asyncio.run(asyncio.wait_for(make_and_watch(), 60)) > 0
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(FileNotFoundError):
        live.chunks()


def test_encoding_ends_at_the_next_frame_when_the_job_is_cancelled(tmp_path: Path) -> None:
    looks = iter(range(100))
    with (
        pytest.raises(Cancelled),
        encoding(tmp_path / "made.mp4", is_cancelled=lambda: next(looks) == 3) as made,
    ):
        made.append(frames(50))
    assert next(looks) == 4, "no frame after it was looked at"
    assert list(tmp_path.iterdir()) == []
