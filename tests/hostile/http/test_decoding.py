"""Remote client with a token: its pictures and videos are to take memory or time, or to take over a decoder."""

from __future__ import annotations

import concurrent.futures
import contextlib
import time
import zlib
from collections.abc import Callable

import httpx
import pytest
from hostile_media import avif, cut_up_gif, gif, png, scanned_jpeg, tiff, video, webp
from hostile_serving import Honest, Served, until

pytestmark = pytest.mark.timeout(240)
PICTURES: dict[str, Callable[[], bytes]] = {
    "8192x8192 in 261 kB": lambda: png(8192, 8192),
    "a header that claims gigapixels": lambda: png(8, 8, claimed=(60000, 60000)),
    "a header that claims another size": lambda: png(8, 8, claimed=(4000, 4000)),
    "a header that claims nothing": lambda: png(8, 8, claimed=(0, 8)),
    "4,000 scans": lambda: scanned_jpeg(2048, 4000),
    "3,000 scans of 64 Mpx": lambda: scanned_jpeg(8192, 3000),
    "60 scans of 36 Mpx": lambda: scanned_jpeg(6000, 50),
    "10,000 colour profiles": lambda: png(8, 8, chunks=[(b"iCCP", b"x\0\0" + zlib.compress(b"\0" * 100_000))] * 10_000),
    "200,000 empty chunks": lambda: png(8, 8, chunks=[(b"exTr", b"")] * 200_000),
    "200,000 empty pieces": lambda: png(8, 8, chunks=[(b"IDAT", b"")] * 200_000),
    "a JPEG of comments": lambda: b"\xff\xd8" + b"\xff\xfe\0\2" * 1_000_000 + scanned_jpeg(64, 1)[2:],
    "a JPEG of filling": lambda: b"\xff\xd8" + b"\xff" * 2_000_000 + scanned_jpeg(64, 1)[2:],
    "no end": lambda: png(1000, 1000)[:-200],
    "half a JPEG": lambda: scanned_jpeg(512, 1)[:700],
    "WebP that claims much": lambda: b"RIFF\x20\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0\xff\xff\xff\xff\xff\xff" + b"\0" * 9,
    "no picture": lambda: b"\xff\xd8\xff" + b"\xff\xc0" * 400_000,
    "text": lambda: b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "PostScript": lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    "TIFF": lambda: b"II*\0\x08\0\0\0" + b"\0" * 100,
    "TIFF that claims much": lambda: tiff(100_000, 100_000),
    "TIFF without its data": lambda: tiff(1000, 1000),
    "TIFF with a directory in itself": lambda: tiff(64, 64, [(330, 4, 1, 8), (34665, 4, 1, 8)]),
    "TIFF of 60,000 fields": lambda: tiff(4000, 4000, [(40_000 + n % 5000, 4, 1 << 30, 8) for n in range(60_000)]),
    "AVIF that claims much": lambda: avif(60_000, 1),
    "AVIF of a million sizes": lambda: avif(64, 1_000_000),
    "EXIF in itself": lambda: png(8, 8, chunks=[(b"eXIf", tiff(8, 8, [(34665, 4, 1, 8)]))])[:-30],
}
VIDEOS: dict[str, Callable[[], bytes]] = {
    "80 frames of 8192x8192 in 1.3 kB": lambda: gif(8192, 80),
    "44 frames of 6900x6900 in 1 kB": lambda: gif(6900, 44),
    "900 frames of 4096x4096": lambda: gif(4096, 900),
    "a million frames": lambda: gif(64, 1_000_000),
    "pieces of one byte": lambda: cut_up_gif(4_000_000),
    "WebP of 80 frames of 8192x8192": lambda: webp(8192, 80),
    "WebP of a million frames": lambda: webp(64, 1_000_000),
    "WebP without its frames": lambda: webp(64, 9),
    "animated AVIF without its frames": lambda: avif(64, 9).replace(b"ftypavif", b"ftypavis"),
    "a codec that is not decoded": lambda: video("huffyuv", "avi", pix_fmt="rgb24"),
    "another": lambda: video("rawvideo", "matroska"),
    "another in mp4": lambda: video("png", "mp4", pix_fmt="rgb24"),
    "a list of addresses": lambda: b"\0\0\0\x18ftypisom#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:1/x.ts\n",
    "a list of files": lambda: b"\x1a\x45\xdf\xa3ffconcat version 1.0\nfile /etc/passwd\n",
    "half a video": lambda: video("libx264", "mp4")[:900],
    "one frame": lambda: video("libx264", "mp4", num_frames=1),
}


def edit(served: Served, content: bytes, timeout_s: float = 120) -> httpx.Response:
    files = {"image": ("x.png", content), "prompt": (None, "x")}
    return served.http.post("/v1/images/edits", files=files, timeout=timeout_s)


def extend(served: Served, content: bytes, timeout_s: float = 120) -> httpx.Response:
    files = {"input_reference": ("x.mp4", content), "prompt": (None, "x")}
    return served.http.post("/v1/videos", files=files, timeout=timeout_s)


@pytest.mark.parametrize("name", PICTURES)
def test_an_expensive_or_invalid_picture_is_refused(served: Served, honest: Honest, name: str) -> None:
    answer = edit(served, PICTURES[name]())
    assert answer.status_code == 400, answer.text[:300]
    assert answer.json()["error"]["param"] == "image"


@pytest.mark.parametrize("name", VIDEOS)
def test_an_expensive_or_invalid_video_is_refused(served: Served, honest: Honest, name: str) -> None:
    answer = extend(served, VIDEOS[name]())
    assert answer.status_code == 400, answer.text[:300]
    assert answer.json()["error"]["param"] == "input_reference"


def test_many_large_pictures_at_once_take_no_memory_of_the_front(served: Served, honest: Honest) -> None:
    edit(served, png(64, 64))
    before = served.own_nbytes()
    large = png(6000, 6000)
    with concurrent.futures.ThreadPoolExecutor(20) as threads:
        answers = [threads.submit(edit, served, content) for content in [large] * 4 + [png(8192, 8192)] * 6]
        peak = 0
        while not all(answer.done() for answer in answers):
            peak = max(peak, served.own_nbytes())
            time.sleep(0.02)
        assert [answer.result().status_code for answer in answers] == [200] * 4 + [400] * 6
    assert peak < before + (100 << 20)
    until(lambda: served.own_nbytes() < before * 1.10, "memory is given back")


def test_decoding_stops_when_its_client_disconnects(served: Served, honest: Honest) -> None:
    slow = gif(2040, 128)  # all that is decoded of one video, and many seconds of it
    before = len(served.http.get("/v1/videos?limit=100").json()["data"])

    def ask_and_leave(_: int) -> None:
        with contextlib.suppress(httpx.TimeoutException):
            extend(served, slow, 1.0)

    with concurrent.futures.ThreadPoolExecutor(12) as threads:
        list(threads.map(ask_and_leave, range(24)))
    started_s = time.monotonic()
    answer = extend(served, video("libx264", "mp4"), honest.patience_s)
    assert answer.status_code == 200, answer.text
    assert time.monotonic() - started_s < honest.patience_s

    def is_idle() -> bool:
        used = [sum(process.cpu_times()[:2]) for process in served.decoders()]
        time.sleep(0.5)
        return used == [sum(process.cpu_times()[:2]) for process in served.decoders()]

    until(is_idle, "decoders rest when their clients have gone", 20)
    assert len(served.http.get("/v1/videos?limit=100").json()["data"]) == before + 1, "no job of theirs was made"


def test_small_pictures_and_text_do_not_wait_for_long_videos(served: Served, honest: Honest) -> None:
    slow = gif(2040, 30)
    with concurrent.futures.ThreadPoolExecutor(6) as threads:
        decoding = [threads.submit(extend, served, slow) for _ in range(4)]
        until(lambda: any(process.cpu_percent(0.1) > 20 for process in served.decoders()), "decoders are at work")
        started_s = time.monotonic()
        assert served.http.post("/v1/videos", json={"prompt": "text alone"}).status_code == 200
        assert edit(served, png(64, 64)).status_code == 200
        assert time.monotonic() - started_s < honest.patience_s
        assert not all(each.done() for each in decoding)
        assert {each.result().status_code for each in decoding} == {200}


def test_a_decoder_that_dies_fails_one_job_and_has_no_secrets(served: Served, honest: Honest) -> None:
    edit(served, png(64, 64))
    for process in served.decoders():
        environment = process.environ()
        assert not [name for name in environment if "KEY" in name or "TOKEN" in name]
        assert process.net_connections() == []
        process.kill()
    answers = [edit(served, png(64, 64)).status_code for _ in range(3)]
    assert answers[-1] == 200
    assert set(answers) <= {200, 400}
    assert extend(served, video("libx264", "mp4")).status_code == 200


@pytest.mark.parametrize(
    ("codec", "container", "pix_fmt"),
    [
        ("libx264", "mp4", "yuv420p"), ("mpeg4", "mp4", "yuv420p"), ("libvpx-vp9", "webm", "yuv420p"),
        ("libvpx", "webm", "yuv420p"), ("ffv1", "matroska", "bgr0"), ("gif", "gif", "rgb8"),
        ("mpeg4", "avi", "yuv420p"), ("libx264", "mpegts", "yuv420p"), ("mpeg2video", "mpeg", "yuv420p"),
    ],
)  # fmt: skip
def test_honest_videos_are_decoded(served: Served, codec: str, container: str, pix_fmt: str) -> None:
    answer = extend(served, video(codec, container, pix_fmt=pix_fmt))
    assert answer.status_code == 200, answer.text
