"""`mora generate` refuses unsuitable files before it loads models, and results are whole."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mora_launch.config.train_config import load_config
from mora_launch.generation import input_file
from mora_launch.generation.command import GenerateOptions, generate
from mora_launch.generation.input_file import read_input
from mora_launch.generation.result_file import ResultFile
from mora_launch.review.decision import ReviewRefused
from mora_launch.review.session import ReviewSession
from mora_launch.tasks.media import png
from mora_runtime.errors import SettingsError, StorageError
from rich.console import Console

TINY = Path(__file__).resolve().parents[3] / "configs" / "tiny.yaml"


def test_a_device_a_pipe_and_a_file_that_is_too_large_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (Path("/dev/zero"), tmp_path / "pipe", tmp_path):
        with pytest.raises(SettingsError, match="expected a file, got a device, pipe or folder"):
            read_input(path, "--image")
    (tmp_path / "large").write_bytes(b"12345")
    monkeypatch.setattr(input_file, "MAX_INPUT_FILE_NBYTES", 4)
    with pytest.raises(SettingsError, match=r"--image .*large: expected at most 4 bytes, got 5"):
        read_input(tmp_path / "large", "--image")


def test_an_output_that_cannot_be_written_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    options = GenerateOptions("text_to_video", "a cat", 1)
    for output in (Path("/proc/out.mp4"), tmp_path / "file" / "out.mp4"):
        with pytest.raises(SettingsError, match=r"-o .*out\.mp4: cannot be written"):
            generate(options, load_config(TINY, []), output, Console())


def test_an_output_never_replaces_its_own_input(tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(b"a clip")
    (tmp_path / "link.mp4").symlink_to(clip)
    for output in (clip, tmp_path / "link.mp4"):
        with pytest.raises(SettingsError, match="is also an input"):
            ResultFile(output, [str(clip)])
    ResultFile(tmp_path / "other.mp4", [str(clip)])


def test_a_full_disk_leaves_the_previous_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = ResultFile(tmp_path / "out.mp4")
    result.write(b"first", {"seed": 1})

    def full(*_: Any, **__: Any) -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as disk:
        disk.setattr(os, "replace", full)
        with pytest.raises(StorageError, match="could not be written: No space left on device"):
            result.write(b"second", {"seed": 2})
    assert (tmp_path / "out.mp4").read_bytes() == b"first"
    assert json.loads((tmp_path / "out.mp4.json").read_text()) == {"seed": 1}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.mp4", "out.mp4.json"]


def test_a_review_that_began_with_another_file_is_not_continued(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(np.zeros((8, 8, 3), dtype=np.uint8)))
    options = GenerateOptions("image_to_video", "a cat", 1, image=str(tmp_path / "a.png"))
    digest = hashlib.sha256(b"what the picture was before").hexdigest()
    ReviewSession.create(tmp_path / "review", {**options.__dict__, "inputs": {"image": digest}})
    with pytest.raises(ReviewRefused, match="contains a review of another request"):
        generate(options, load_config(TINY, []), tmp_path / "out.mp4", Console(), session_folder=tmp_path / "review")
