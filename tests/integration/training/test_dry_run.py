"""`--dry-run` refuses what a real start refuses, in the same words, and writes nothing."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from mora_launch.cli import cli
from mora_runtime.errors import DatasetError, MoraError, PlacementError, RunExists

from .mora_process import ROOT

TOYS = ROOT / "tests" / "toy_agents" / "pair.yaml"


def refusal(run: Path, *words: str) -> MoraError:
    refused = CliRunner().invoke(cli, ["train", str(TOYS), "--run", str(run), *words])
    assert isinstance(refused.exception, MoraError), refused.output
    return refused.exception


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A data set whose key is misspelled."""
    path = tmp_path / "clips.jsonl"
    path.write_text(json.dumps({"promt": "a cat", "video": "a.mp4"}) + "\n")
    return path


def test_a_broken_data_set_is_refused_as_by_a_start(tmp_path: Path, broken: Path) -> None:
    words = ("--set", f"data={broken}")
    planned = refusal(tmp_path / "planned", *words, "--dry-run")
    started = refusal(tmp_path / "started", *words)
    assert isinstance(planned, DatasetError)
    assert "unknown key `promt`" in str(planned)
    assert str(planned) == str(started)
    assert not (tmp_path / "planned").exists()


def test_an_unknown_device_is_refused_as_by_a_start(tmp_path: Path) -> None:
    words = ("--set", "agents.video.devices=['node2:cuda:0']")
    planned = refusal(tmp_path / "planned", *words, "--dry-run")
    assert isinstance(planned, PlacementError)
    assert str(planned) == "video.0: unknown device `node2:cuda:0`; expected cpu, cuda:0, cuda:1, ..."
    assert str(refusal(tmp_path / "started", *words)) == str(planned)
    assert not (tmp_path / "planned").exists()


def test_a_run_that_exists_is_refused_as_by_a_start(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    for words in (("--dry-run",), ()):
        assert isinstance(refusal(tmp_path, *words), RunExists)
