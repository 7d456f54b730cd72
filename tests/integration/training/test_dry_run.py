"""`--dry-run` refuses what a real start refuses, in the same words, and writes nothing."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from mora_launch.cli import cli
from mora_launch.config.train_config import load_config
from mora_launch.jobs.servers import check_agents
from mora_launch.serving.models import served_models
from mora_runtime.errors import DatasetError, MoraError, PlacementError, RunExists
from rich.console import Console

from .mora_process import ROOT

TOYS = ROOT / "tests" / "toy_agents" / "pair.yaml"
PUBLISHED = sorted((ROOT / "configs").glob("mora-*.yaml"))


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


@pytest.mark.long
@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.stem)
def test_a_job_of_published_models_fits_its_gpus(path: Path, tmp_path: Path) -> None:
    words = ["--run", str(tmp_path / "run"), "--dry-run", "--gpu", "H100", "--json", str(tmp_path / "plan.json")]
    planned = CliRunner().invoke(cli, ["train", str(path), *words])
    assert planned.exception is None, planned.output
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert set(plan["devices"]) == {f"cuda:{number}" for number in range(8)}
    assert plan["step_s"] > 0.0


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.stem)
def test_the_environments_accept_all_agents_of_published_models(path: Path) -> None:
    config = served_models(load_config(path, [])).config
    checked = check_agents(config, Console(quiet=True))
    assert set(checked) == set(config.agents)
    assert all(each.components for each in checked.values())
