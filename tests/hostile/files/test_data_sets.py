"""Files of strangers: data sets. A line is typed and bounded, a video is a regular file, and FFmpeg opens no other."""

from __future__ import annotations

import os
import socket
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from mora_data.clips import duration_s, read_clip
from mora_data.dataset import read_dataset, resolve_dataset
from mora_data.settings import ClipShape, DataSettings
from mora_data.video_writer import write_video
from mora_runtime.errors import DatasetError

SHAPE = ClipShape(num_frames=2, height=16, width=16, fps=8)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"[" * 60_000, "nesting"),
        (b'{"prompt": ' * 5000, "nesting"),
        (b'{"prompt": "' + b"x" * 70_000 + b'", "video": "v"}', "bytes in a line"),
        (b'{"prompt": "x", "video": "v", "start_s": ' + b"9" * 400 + b"}", "digits"),
        (b'{"prompt": "x", "video": "v", "fps": 1e999}', "finite"),
        (b'{"prompt": "x", "video": "v", "fps": NaN}', "finite"),
        (b'{"prompt": "x", "video": "v", "fps": Infinity}', "finite"),
        (b'{"prompt": "x", "prompt": "y", "video": "v"}', "occurs twice"),
        (b'{"prompt": ["x"], "video": "v"}', "`prompt` must be"),
        (b'{"prompt": "\\ud800", "video": "v"}', "surrogate"),
        (b'{"prompt": "x", "video": ["/etc/passwd"]}', "`video` must be a path"),
        (b'{"prompt": "x", "video": ""}', "`video` must be a path"),
        (b'{"prompt": "x", "video": "a\\u0000b"}', "`video` must be a path"),
        (b'{"prompt": "x", "video": "' + b"v" * 5000 + b'"}', "`video` must be a path"),
        (b'{"prompt": "x", "video": "v", "start_s": "1"}', "`start_s` must be"),
        (b'{"prompt": "x", "video": "v", "image_seed": 1.5}', "`image_seed` must be"),
        (b'{"prompt": "x", "video": "v", "image_seed": true}', "`image_seed` must be"),
        (b'{"prompt": "x", "video": "v", "seeds": [1]}', "`seeds` must be an object"),
        (b'{"prompt": "x", "video": "v", "seeds": {"image": -1}}', "`seeds.image` must be"),
        (b'{"prompt": "x", "video": "v", "seeds": {"image": 9223372036854775808}}', "`seeds.image` must be"),
        (b'{"prompt": "x", "video": "v", "\\u001b[2J": 1}', "unknown key `[2J`"),
        (b"\xff\xfe", "not UTF-8"),
    ],
)  # fmt: skip
def test_an_invalid_line_is_refused_by_its_number(tmp_path: Path, line: bytes, words: str) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes(b'{"prompt": "x", "video": "v"}\n' + line + b"\n")
    with pytest.raises(DatasetError) as caught:
        read_dataset(path)
    assert f"{path}:2: " in str(caught.value)
    assert words in str(caught.value)
    assert str(caught.value).isprintable()


def test_an_endless_line_and_endless_lines_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes(b"x" * (30 << 20))
    with pytest.raises(DatasetError, match="bytes in a line"):
        read_dataset(path)
    path.write_bytes(b"\n" * 1_000_001)
    with pytest.raises(DatasetError, match="at most 1000000 lines"):
        read_dataset(path)


@pytest.mark.timeout(20)
def test_a_pipe_or_device_as_video_never_blocks(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "zero.jsonl").symlink_to("/dev/zero")
    for name in ("pipe.jsonl", "zero.jsonl"):
        with pytest.raises(DatasetError, match="expected a regular file"):
            resolve_dataset(DataSettings(path=str(tmp_path / name)), SHAPE, tmp_path / "run", ())
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "link.mp4").symlink_to("pipe.mp4")
    (tmp_path / "folder.mp4").mkdir()
    for video in (tmp_path / "pipe.mp4", tmp_path / "link.mp4", tmp_path / "folder.mp4", Path("/dev/zero")):
        for look in (lambda path: read_clip(path, SHAPE), duration_s):
            with pytest.raises(DatasetError, match="expected a regular file"):
                look(video)
        data = tmp_path / "data.jsonl"
        data.write_text(f'{{"prompt": "x", "video": "{video}"}}\n')
        with pytest.raises(DatasetError, match=r"data\.jsonl:1: .*expected a regular file"):
            resolve_dataset(DataSettings(path=str(data)), SHAPE, tmp_path / "run", ())


def test_a_link_to_a_video_is_followed_because_it_is_the_users_own(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", np.zeros((4, 16, 16, 3), dtype=np.uint8), 8)
    (tmp_path / "link.mp4").symlink_to("a.mp4")
    assert read_clip(tmp_path / "link.mp4", SHAPE).shape == (2, 16, 16, 3)
    assert duration_s(tmp_path / "link.mp4") > 0


PLAY_LISTS = {
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{target}\n#EXT-X-ENDLIST\n",
    "concat": "ffconcat version 1.0\nfile '{target}'\n",
    "dash": (
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
        'mediaPresentationDuration="PT1S"><Period><AdaptationSet><Representation id="1" bandwidth="1"><BaseURL>'
        "{target}</BaseURL></Representation></AdaptationSet></Period></MPD>"
    ),
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 9 RTP/AVP 96\n",
    "subtitles": "1\n00:00:00,000 --> 00:00:01,000\n{target}\n",
}


@pytest.mark.parametrize("kind", PLAY_LISTS)
@pytest.mark.parametrize("name", ["list.mp4", "list.m3u8", "list.mkv"])
def test_a_playlist_opens_no_other_file_or_address(tmp_path: Path, kind: str, name: str) -> None:
    os.mkfifo(tmp_path / "other.ts")
    holder = os.open(tmp_path / "other.ts", os.O_RDWR | os.O_NONBLOCK)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.2)
        for target in (tmp_path / "other.ts", f"http://127.0.0.1:{listener.getsockname()[1]}/x.ts"):
            (tmp_path / name).write_text(PLAY_LISTS[kind].format(target=target))
            for look in (lambda path: read_clip(path, SHAPE), duration_s):
                with pytest.raises(DatasetError, match=r"expected an mp4|cannot be decoded"):
                    look(tmp_path / name)
        with pytest.raises(TimeoutError):
            listener.accept()
    os.close(holder)


def test_a_name_that_is_an_address_is_treated_as_a_missing_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.2)
        for name in (f"http://127.0.0.1:{listener.getsockname()[1]}/x.mp4", "concat:/etc/passwd|/etc/hosts", "pipe:0"):
            Path("data.jsonl").write_text(f'{{"prompt": "x", "video": "{name}"}}\n')
            with pytest.raises(DatasetError, match="No such file"):
                resolve_dataset(DataSettings(path="data.jsonl"), SHAPE, tmp_path / "run", ())
        with pytest.raises(TimeoutError):
            listener.accept()


@pytest.mark.parametrize(("codec", "pixels"), [("png", "rgb24"), ("rawvideo", "yuv420p"), ("qtrle", "rgb24")])
def test_an_unexpected_codec_is_not_decoded(tmp_path: Path, codec: str, pixels: str) -> None:
    path = tmp_path / "clip.mov"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=8)
        stream.width, stream.height, stream.pix_fmt = 16, 16, pixels
        for number in range(3):
            frame = av.VideoFrame(16, 16, pixels)
            frame.pts, frame.time_base = number, Fraction(1, 8)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    for look in (lambda path: read_clip(path, SHAPE), duration_s):
        with pytest.raises(DatasetError, match=f"expected one of the codecs .* got {codec}"):
            look(path)
