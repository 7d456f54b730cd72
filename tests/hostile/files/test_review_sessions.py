"""Files of strangers: the folder of a review from another person. Other local user: one that this user has made."""

from __future__ import annotations

import json
import os
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mora_launch.review.decision import ReviewRefused, StageResult
from mora_launch.review.frames_file import read_frames, write_frames
from mora_launch.review.session import ReviewSession
from mora_runtime.errors import MoraError, SettingsError

ASKED = {"task": "text_to_video"}


@pytest.fixture
def session(tmp_path: Path) -> ReviewSession:
    made = ReviewSession.create(tmp_path / "out.mp4.review", ASKED)
    made.offer(StageResult(stage="image", kind="frames", prompt="a", attempt=0), np.zeros((4, 4, 3), dtype=np.uint8))
    return made


def candidate_file(session: ReviewSession) -> Path:
    candidate = session.state().candidate
    assert candidate is not None
    assert candidate.file is not None
    return session.folder / candidate.file


def change(session: ReviewSession, **changes: Any) -> None:
    path = session.folder / "state.json"
    content = json.loads(path.read_text())
    content["candidate"] |= changes
    path.write_text(json.dumps(content))


def test_an_honest_session_gives_its_frames_back(session: ReviewSession) -> None:
    candidate = session.state().candidate
    assert candidate is not None
    assert session.frames(candidate).shape == (4, 4, 3)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"[" * 100_000, "nesting"),
        (b" " * ((1 << 20) + 1), "bytes"),
        (b"[]", "expected a JSON object"),
        (b'{"version": 1, "version": 2}', "occurs twice"),
        (b'{"version": NaN}', "finite"),
        (b"\xff", "not UTF-8"),
        (b"", "is not JSON"),
        (b'{"version": "x"}', "version"),
        (b'{"evil": 1}', "unknown key"),
    ],
)
def test_an_invalid_state_is_refused(session: ReviewSession, text: bytes, words: str) -> None:
    (session.folder / "state.json").write_bytes(text)
    with pytest.raises(SettingsError, match=words):
        session.state()
    with pytest.raises(MoraError):
        ReviewSession.create(session.folder, ASKED)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", ["state.json", "frames", "lock"])
def test_a_link_or_pipe_in_place_of_a_file_is_refused(session: ReviewSession, tmp_path: Path, name: str) -> None:
    path = candidate_file(session) if name == "frames" else session.folder / name
    candidate = session.state().candidate
    assert candidate is not None
    moved = tmp_path / "moved"
    path.rename(moved)
    path.symlink_to(moved)
    before = moved.read_bytes()
    with pytest.raises(SettingsError):
        session.frames(candidate) if name == "frames" else session.stop()
    assert moved.read_bytes() == before
    path.unlink()
    os.mkfifo(path)
    if name != "lock":
        with pytest.raises(SettingsError, match="expected a regular file"):
            session.frames(candidate) if name == "frames" else session.stop()


@pytest.mark.parametrize("name", ["../../secret.npy", "/etc/passwd", ".hidden", "a/b", "..", "", "a\0b", "a\x1b[2J"])
def test_a_candidate_that_names_another_file_is_refused(session: ReviewSession, name: str) -> None:
    change(session, file=name)
    with pytest.raises(SettingsError, match=r"candidate\.file"):
        session.state()


@pytest.mark.parametrize("stage", ["../../x", "/x", "x/../y", "\x1b[2J", "", "x" * 100, "Ünsinn"])
def test_a_stage_that_is_a_path_is_refused(session: ReviewSession, stage: str) -> None:
    change(session, stage=stage)
    with pytest.raises(SettingsError, match=r"candidate\.stage"):
        session.state()


def header(shape: str, dtype: str = "'|u1'", order: str = "False", length: int | None = None) -> bytes:
    text = f"{{'descr': {dtype}, 'fortran_order': {order}, 'shape': {shape}, }}".encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + (len(text) if length is None else length).to_bytes(2, "little") + text


@pytest.mark.parametrize(
    "content",
    [
        header("(1099511627776, 4096, 3)"), header("(4, 4, 3)"), header("(4, 4, 3)") + b"x" * 47,
        header("(4, 4, 3)") + b"x" * 49, header("(0, 4, 3)"), header("(-4, -4, 3)") + b"x" * 48,
        header("(4, 4, 4)") + b"x" * 64, header("(48,)") + b"x" * 48, header("(4, 4, 3)", "'<f8'") + b"x" * 384,
        header("(4, 4, 3)", "'|O'") + b"x" * 48, header("(4, 4, 3)", "[('a', '|u1')]") + b"x" * 48,
        header("(4, 4, 3)", order="True") + b"x" * 48, header("(True, 16, 3)") + b"x" * 48, header("'abc'") + b"x" * 48,
        header("(4, 4, 3)", length=65535), header("(" * 3000), header("__import__('os')"), b"", b"\x93NUMPY\x09\x00",
        b"\x93NUMPY\x02\x00\xff\xff\xff\x7f" + b"x" * 100, b"PK\x03\x04", b"\x80\x04\x95",
    ],
)  # fmt: skip
def test_invalid_frames_are_refused_before_their_header_allocates_memory(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "frames.npy"
    path.write_bytes(content)
    tracemalloc.start()
    with pytest.raises(SettingsError, match="expected frames that a review has written"):
        read_frames(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 << 20


def test_a_picture_and_a_clip_are_read_back_as_written(tmp_path: Path) -> None:
    for shape in ((4, 6, 3), (2, 4, 6, 3)):
        frames = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        write_frames(tmp_path / "frames.npy", frames)
        assert (read_frames(tmp_path / "frames.npy") == frames).all()
        turned = np.asfortranarray(frames)
        write_frames(tmp_path / "frames.npy", turned)
        assert (read_frames(tmp_path / "frames.npy") == frames).all()


@pytest.mark.parametrize("kind", ["link", "open to others", "another's", "file"])
def test_a_folder_that_is_not_private_to_the_user_is_refused(tmp_path: Path, kind: str) -> None:
    folder, elsewhere = tmp_path / "out.mp4.review", tmp_path / "elsewhere"
    elsewhere.mkdir()
    if kind == "link":
        folder.symlink_to(elsewhere)
    elif kind == "file":
        folder.write_text("x")
    else:
        folder.mkdir(mode=0o700)
        if kind == "open to others":
            folder.chmod(0o777)
        elif os.geteuid() != 0:
            pytest.skip("only root can give a folder away")
        else:
            os.chown(folder, 1042, 1042)
    with pytest.raises((ReviewRefused, FileExistsError)):
        ReviewSession.create(folder, ASKED)
    assert list(elsewhere.iterdir()) == []
