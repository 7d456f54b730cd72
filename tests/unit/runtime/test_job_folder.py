"""The folder that an agent's servers of one job share is there while the agent is built, and in training only."""

from __future__ import annotations

from pathlib import Path

import pytest
from mora_environment.job_folder import job_folder, shared_folders


def test_there_is_none_outside_of_a_job() -> None:
    assert job_folder("text") is None
    with shared_folders(None):
        assert job_folder("text") is None


def test_it_is_made_and_forgotten_after_the_block(tmp_path: Path) -> None:
    with shared_folders(tmp_path / "cache" / "video"):
        assert job_folder("text") == tmp_path / "cache" / "video" / "text"
        assert (tmp_path / "cache" / "video" / "text").is_dir()
        with shared_folders(tmp_path / "cache" / "image"):
            assert job_folder("text") == tmp_path / "cache" / "image" / "text"
        assert job_folder("targets") == tmp_path / "cache" / "video" / "targets"
    assert job_folder("text") is None


def test_it_is_forgotten_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no weights"), shared_folders(tmp_path):
        raise ValueError("no weights")
    assert job_folder("text") is None
