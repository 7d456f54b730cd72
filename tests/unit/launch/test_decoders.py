"""The cost of decoding is known before it begins, and a misbehaving decoder fails only one job."""

from __future__ import annotations

import io
import os
import queue
import signal
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import psutil
import pytest
from mora_data.reading.fitting import fitted
from mora_data.reading.timeline import Video
from mora_launch.decoding import wire
from mora_launch.decoding.job import DecodeJob, decode_job
from mora_launch.decoding.picture import read_picture
from mora_launch.decoding.picture_header import read_header
from mora_launch.decoding.pool import DecodePool
from mora_launch.decoding.video import read_video
from mora_launch.decoding.worker_process import WorkerProcess
from mora_launch.limits import MAX_WAIT_S
from mora_launch.serving.http.admission import TooBusy
from mora_launch.serving.http.held_bytes import HeldBytes
from mora_launch.tasks.errors import BadRequest
from mora_launch.tasks.media import encode, png
from mora_runtime.errors import Cancelled, RoleFailed
from PIL import Image
from pydantic import ValidationError

SIZE = (32, 48)


def picture(width: int = 90, height: int = 60) -> np.ndarray[Any, Any]:
    column = np.linspace(0, 255, width, dtype=np.uint8)
    return np.broadcast_to(column[None, :, None], (height, width, 3)).copy()


def saved(kind: str, **options: Any) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(picture()).save(sink, kind, **options)
    return sink.getvalue()


def job(content: bytes) -> DecodeJob:
    return decode_job(content, "image", size=SIZE, max_frames=50)


@pytest.fixture(scope="module")
def pool() -> Iterator[DecodePool]:
    made = DecodePool()
    yield made
    made.close()


@pytest.mark.parametrize(
    ("kind", "options", "num_scans"),
    [
        ("PNG", {}, 1), ("JPEG", {"quality": 90}, 1), ("JPEG", {"progressive": True}, 10),
        ("WEBP", {"lossless": True}, 1), ("WEBP", {"quality": 80}, 1),
        ("WEBP", {"quality": 80, "exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0"}, 1),
        ("AVIF", {"quality": 80}, 1), ("TIFF", {}, 1), ("TIFF", {"compression": "tiff_lzw"}, 1),
    ],
)  # fmt: skip
def test_headers_tell_format_size_and_scans(kind: str, options: dict[str, Any], num_scans: int) -> None:
    header = read_header(saved(kind, **options), "image")
    assert (header.kind, header.width, header.height, header.num_scans) == (kind, 90, 60, num_scans)


def test_a_decoder_gives_the_same_result_as_decoding_in_this_process(pool: DecodePool) -> None:
    for content in (saved("PNG"), saved("WEBP", lossless=True), saved("JPEG", quality=95)):
        made = job(content)
        pool.submit(made)
        assert np.array_equal(made.future.result(60), read_picture(content, "image", SIZE))
    content = encode(np.stack([picture()] * 6), 8.0, "mp4", {})
    made = job(content)
    pool.submit(made)
    found, here = made.future.result(60), read_video(content, "image", max_frames=50, size=SIZE)
    assert isinstance(found, Video)
    assert np.array_equal(found.frames, here.frames)
    assert found.fps == here.fps


def test_a_decoder_gives_times_sound_and_notes_too(pool: DecodePool) -> None:
    first, *rest = [Image.fromarray(picture() // (n + 1)) for n in range(4)]
    sink = io.BytesIO()
    first.save(sink, "GIF", save_all=True, append_images=rest, duration=[100, 500, 100, 100])
    made = job(sink.getvalue())
    pool.submit(made)
    found = made.future.result(60)
    assert isinstance(found, Video)
    assert found.starts_s == pytest.approx((0.0, 0.1, 0.6, 0.7))
    assert (found.has_sound, found.note) == (False, "")


def test_a_decoder_starts_no_threads_that_stay(pool: DecodePool) -> None:
    """Each would cost address space, of which a decoder has little."""
    content = encode(np.stack([picture(320, 240)] * 12), 8.0, "mp4", {})
    for _ in range(30):
        made = job(content)
        pool.submit(made)
        assert isinstance(made.future.result(60), Video)
    assert all(psutil.Process(pid).num_threads() <= 2 for pid in pool.pids)


@pytest.mark.parametrize(
    ("starts_s", "said"),
    [
        ([0.0, 0.1, 0.1], "begin at 0 and grow"), ([0.5, 0.6, 0.7], "begin at 0 and grow"),
        ([0.0, 0.1, float("inf")], "begin at 0 and grow"), ([0.0, float("nan"), 1.0], "begin at 0 and grow"),
        ([0.0, 0.1], "a time for each of 3 frames, got 2"),
    ],
)  # fmt: skip
def test_a_decoders_times_are_checked(starts_s: list[float], said: str) -> None:
    frames = np.zeros((3, 4, 4, 3), np.uint8)
    handle = wire.sealed_file("frames", [frames.data, np.array(starts_s).data])
    answer = wire.DecodeAnswer(num_frames=3, height=4, width=4, fps=8.0, num_starts=len(starts_s))
    try:
        with pytest.raises(ValueError, match=said):
            wire.frames_of(answer, handle, "video")
    finally:
        os.close(handle)


@pytest.mark.parametrize("fps", [0.0, -1.0, float("inf"), float("nan")])
def test_a_decoders_rate_is_checked(fps: float) -> None:
    with pytest.raises(ValidationError):
        wire.DecodeAnswer(num_frames=3, height=4, width=4, fps=fps)


def test_a_large_jpeg_is_decoded_small_and_looks_the_same() -> None:
    sink = io.BytesIO()
    Image.fromarray(picture(1600, 1200)).save(sink, "JPEG", quality=95)
    small = read_picture(sink.getvalue(), "image", SIZE).astype(int)
    whole = fitted(read_picture(sink.getvalue(), "image")[None], *SIZE)[0].astype(int)
    assert abs(small - whole).max() <= 6


def test_a_decoder_that_is_killed_or_stopped_costs_its_own_job(pool: DecodePool) -> None:
    made = job(saved("PNG"))
    pool.submit(made)
    made.future.result(60)
    killed = pool.pids
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    results = []
    for _ in range(len(killed) + 2):
        made = job(saved("PNG"))
        pool.submit(made)
        results.append(made.future.exception(60))
    failed = [error for error in results if error is not None]
    assert len(failed) <= len(killed)  # each decoder fails the job it had, then a new one takes its place
    assert all(isinstance(error, BadRequest) for error in failed)


def test_work_that_is_cancelled_ends_its_decoder_and_the_next_is_done() -> None:
    worker, made = WorkerProcess(), job(saved("PNG"))
    try:
        worker.start()
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGSTOP)  # as if it decoded for ever
        threading.Timer(0.2, made.cancel).start()
        with pytest.raises(Cancelled):
            worker.decode(made)
        assert worker.pid is None
        assert worker.decode(job(saved("PNG"))) is not None
    finally:
        worker.kill()


def test_cheap_work_is_taken_first_and_cancelled_work_never(pool: DecodePool) -> None:
    queue = DecodePool(num_decoders=0)
    sizes = [(4000, 3000), (3000, 2000), (2600, 2000)]
    jobs = [DecodeJob("picture", b"", "image", SIZE, 1, width * height) for width, height in sizes]
    queue._waiting = list(jobs)
    jobs[2].cancel()
    assert queue.take(only_small=False) is jobs[1]
    assert queue.take(only_small=False) is jobs[0]
    queue.close()
    assert queue.take(only_small=False) is None
    late = job(saved("PNG"))
    queue.submit(late)
    assert isinstance(late.future.exception(1), RoleFailed)


def test_a_job_that_has_waited_long_goes_before_cheaper_ones() -> None:
    queue = DecodePool(num_decoders=0)
    old, cheap = (DecodeJob("picture", b"", "image", SIZE, 1, cost) for cost in (9000, 1))
    old.since_s -= 2 * MAX_WAIT_S
    queue._waiting = [old, cheap]
    assert queue.take(only_small=True) is old
    assert queue.take(only_small=True) is cheap
    queue.close()


def large(tenant: str, queue: DecodePool) -> DecodeJob:
    made = DecodeJob("video", b"", "video", SIZE, 1, 1 << 30)
    queue.submit(made, tenant)
    return made


@pytest.fixture
def idle() -> Iterator[DecodePool]:
    """A queue whose decoders take nothing: the tests take in their place."""
    made = DecodePool(num_decoders=0)
    made._decoders.clear()
    yield made
    made.close()


def test_the_file_of_one_tenant_does_not_wait_for_all_files_of_another(idle: DecodePool) -> None:
    anns = [large("ann", idle) for _ in range(120)]
    assert [idle.take(only_small=False) for _ in range(2)] == anns[:2], "as many as there are decoders"
    bobs = large("bob", idle)
    assert idle.take(only_small=False) is bobs
    assert idle.take(only_small=False) is anns[2]


def test_cheap_files_of_one_tenant_do_not_overtake_a_large_one_of_another(idle: DecodePool) -> None:
    bobs = large("bob", idle)
    for _ in range(8):
        idle.submit(DecodeJob("picture", b"", "image", SIZE, 1, 1 << 29), "ann")
    assert idle.take(only_small=False) is bobs
    taken = [idle.take(only_small=False) for _ in range(3)]
    assert [each.tenant for each in taken if each] == ["ann"] * 3
    again = large("bob", idle)
    assert idle.take(only_small=False) is again, "ann has had more than bob by now"


def test_the_time_that_decoding_took_counts_and_not_the_estimate(idle: DecodePool) -> None:
    for tenant in ("ann", "bob"):
        for _ in range(11):
            large(tenant, idle)
    order = []
    for _ in range(11):
        taken = idle.take(only_small=False)
        assert taken is not None
        order.append(taken.tenant)
        idle.spent(taken, 10.0 if taken.tenant == "ann" else 1.0)
    assert order == ["ann", *["bob"] * 10]


def test_decoders_report_the_time_that_they_spent(pool: DecodePool, monkeypatch: pytest.MonkeyPatch) -> None:
    reports: queue.Queue[tuple[DecodeJob, float]] = queue.Queue()
    monkeypatch.setattr(pool, "spent", lambda *report: reports.put(report))
    good, bad = job(saved("PNG")), job(saved("PNG")[:200])
    for each in (good, bad):
        pool.submit(each, "ann")
    found = dict(reports.get(timeout=60) for _ in range(2))
    assert set(found) == {good, bad}
    assert all(0 < spent_s < 60 for spent_s in found.values())


def test_jobs_that_need_too_much_memory_together_are_told_to_come_back() -> None:
    room = HeldBytes(100)
    with room.held(60):
        with pytest.raises(TooBusy, match="already need up to 60 bytes"), room.held(60):
            raise AssertionError("there is no room")
        with room.held(40):
            assert room.nbytes == 100
    assert room.nbytes == 0


def test_the_files_of_one_tenant_leave_memory_for_those_of_the_others() -> None:
    room = HeldBytes(100, ("ann", "bob"))
    with room.held(60, "ann"):
        with pytest.raises(TooBusy, match="need up to 60 bytes, this request would add 30, the limit is 75"):
            room.held(30, "ann").__enter__()
        with room.held(30, "bob"):
            assert room.nbytes == 90
    with room.held(100, "ann"):
        assert room.nbytes == 100, "one large request is served when there is no other"


def test_decoded_jobs_of_one_tenant_leave_memory_for_those_of_the_others() -> None:
    room = HeldBytes(100, ("ann", "bob"))
    with room.held(20, "ann"):
        room.check_room(20, "bob", [("ann", 40), ("ann", 10)])
        with pytest.raises(TooBusy, match="waiting jobs already take 70 bytes, this request would add 20, the limit"):
            room.check_room(20, "ann", [("ann", 40), ("ann", 10)])


@pytest.mark.parametrize(
    "answer",
    [
        b"no JSON", b"[1]", b"\xff", b"{" * 3000, b'{"num_frames": 1}', b'{"num_frames": 1, "height": 9, "width": 9}',
        b'{"num_frames": 100000, "height": 16384, "width": 16384}', b'{"refused": 5}', b'{"unknown": 1}',
    ],
)  # fmt: skip
def test_a_compromised_decoder_gives_no_frames(answer: bytes) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        handle = os.memfd_create("frames", os.MFD_ALLOW_SEALING)
        os.write(handle, b"x" * 100)
        socket.send_fds(theirs, [answer], [handle])
        os.close(handle)
        before = len(os.listdir("/proc/self/fd"))
        with pytest.raises((ValueError, RecursionError)):  # noqa: PT012 - each step may be the one that refuses
            content, handles = wire.receive(ours)
            try:
                wire.frames_of(wire.DecodeAnswer.model_validate(content), handles[0], "picture")
            finally:
                os.close(handles[0])
        assert len(os.listdir("/proc/self/fd")) == before


def test_frames_that_may_still_change_are_refused() -> None:
    handle = os.memfd_create("frames", os.MFD_ALLOW_SEALING)
    os.write(handle, b"x" * 12)
    with pytest.raises(ValueError, match="can still change"):
        wire.frames_of(wire.DecodeAnswer(num_frames=1, height=2, width=2), handle, "picture")
    os.close(handle)
    sealed = wire.sealed_file("frames", [b"x" * 12])
    with pytest.raises(ValueError, match="expected 27 bytes"):
        wire.frames_of(wire.DecodeAnswer(num_frames=1, height=3, width=3), sealed, "picture")
    assert np.all(wire.frames_of(wire.DecodeAnswer(num_frames=1, height=2, width=2), sealed, "picture") == ord("x"))
    os.close(sealed)


def test_decoders_end_with_their_pool() -> None:
    made = DecodePool(num_decoders=1)
    made.submit(job(png(picture())))
    deadline = time.monotonic() + 30
    while len(made.pids) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    pids = made.pids
    made.close()
    assert not [pid for pid in pids if os.path.exists(f"/proc/{pid}")]
