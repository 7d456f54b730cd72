"""Videos and pictures as bytes: they are read back as written, and no other file is opened."""

from __future__ import annotations

import concurrent.futures

import numpy as np
import pytest
from mora_data.reading.fitting import fitted
from mora_data.reading.timeline import Video, at_rate
from mora_launch.decoding.picture import read_picture
from mora_launch.decoding.video import read_video
from mora_launch.tasks.errors import BadRequest
from mora_launch.tasks.media import encode, read_metadata

CLIP = np.repeat(np.linspace(20, 220, 8).astype(np.uint8)[:, None, None, None], 32, 1).repeat(48, 2).repeat(3, 3)


@pytest.mark.parametrize("kind", ["mp4", "webm", "gif"])
def test_a_video_is_read_back_with_its_metadata(kind: str) -> None:
    content = encode(CLIP, 10.0, kind, {"prompt": "ein Kreis äöü", "seed": 3})
    video = read_video(content, "video", max_frames=100)
    assert video.frames.shape == CLIP.shape
    assert abs(video.fps - 10.0) < 0.1
    assert np.abs(video.frames.astype(int) - CLIP).mean() < 6
    assert read_metadata(content) == {"prompt": "ein Kreis äöü", "seed": 3}
    assert encode(CLIP, 10.0, kind, {"prompt": "ein Kreis äöü", "seed": 3}) == content


def test_the_same_clip_is_the_same_file_however_busy_the_machine_is() -> None:
    random = np.random.default_rng(0)
    coarse = np.kron(random.random((8, 8, 3)) * 255, np.ones((8, 8, 1)))
    noisy = [np.clip(coarse + random.normal(0, 12, (64, 64, 3)) + 2 * n, 0, 255) for n in range(24)]
    clip = np.stack(noisy).astype(np.uint8)
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        files = list(threads.map(lambda _: encode(clip, 8.0, "mp4", {}), range(48)))
    assert len(set(files)) == 1


def test_a_png_contains_the_first_frame_and_its_metadata() -> None:
    content = encode(CLIP, 10.0, "png", {"seed": 3})
    assert (read_picture(content, "image") == CLIP[0]).all()
    assert read_metadata(content) == {"seed": 3}


@pytest.mark.parametrize("content", [b"", b"#EXTM3U\nfile:///etc/passwd", b"ffconcat version 1.0\nfile /etc/passwd"])
def test_a_playlist_is_refused_as_a_video(content: bytes) -> None:
    with pytest.raises(BadRequest, match=r"video: is an? (empty|text) file; expected an mp4"):
        read_video(content, "video", max_frames=100)


@pytest.mark.parametrize("content", [b"", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"%PDF-1.4"])
def test_bytes_that_are_no_picture_are_refused(content: bytes) -> None:
    with pytest.raises(
        BadRequest,
        match=r"^image: is an? (empty file|SVG picture|PDF file); expected a PNG, JPEG",
    ):
        read_picture(content, "image")


def test_a_video_of_too_many_frames_is_refused() -> None:
    with pytest.raises(BadRequest, match="at most 5 frames"):
        read_video(encode(CLIP, 10.0, "mp4", {}), "video", max_frames=5)


def test_a_video_can_be_resized_frame_by_frame() -> None:
    content = encode(CLIP, 10.0, "mp4", {})
    whole = fitted(read_video(content, "video", max_frames=100).frames, 20, 24)
    assert (read_video(content, "video", max_frames=100, size=(20, 24)).frames == whole).all()


def test_a_video_is_converted_to_the_requested_rate_and_size() -> None:
    assert len(at_rate(Video(CLIP, 8.0), 16.0)) == 16
    assert len(at_rate(Video(CLIP, 8.0), 4.0)) == 4
    assert fitted(CLIP, 64, 64).shape == (8, 64, 64, 3)


@pytest.mark.parametrize("kind", ["mp4", "webm"])
def test_an_odd_size_is_refused_by_name(kind: str) -> None:
    with pytest.raises(BadRequest, match=f"size: expected an even width and height with {kind}, got 47x32"):
        encode(CLIP[:, :, :47], 8.0, kind, {})
    assert encode(CLIP[:, :, :47], 8.0, "gif", {})


@pytest.mark.parametrize("fps", [7.5, 24.0, 30.0, 50.0])
def test_a_gif_lasts_as_long_as_it_should(fps: float) -> None:
    clip = np.concatenate([CLIP, 255 - CLIP] * 4)
    video = read_video(encode(clip, fps, "gif", {}), "video", max_frames=100)
    starts_s = video.starts_s or np.arange(len(clip)) / video.fps
    assert np.abs(np.asarray(starts_s) - np.arange(len(clip)) / fps).max() <= 0.0051


def test_a_gif_that_no_player_shows_so_fast_is_refused() -> None:
    with pytest.raises(BadRequest, match="fps: expected at most 50 with gif, which no player shows faster, got 60"):
        encode(CLIP, 60.0, "gif", {})


def test_a_video_at_another_rate_shows_the_frame_on_screen() -> None:
    frames = CLIP[:4]
    uneven = Video(frames, 8.0, starts_s=(0.0, 0.1, 0.2, 1.0))
    assert [int(frame[0, 0, 0]) for frame in at_rate(uneven, 5.0)] == [
        int(frames[n, 0, 0, 0]) for n in (0, 2, 2, 2, 2, 3)
    ]
