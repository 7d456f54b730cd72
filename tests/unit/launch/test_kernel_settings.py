"""The kernels that an agent's configuration names reach its servers; only servers that train search for algorithms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mora_environment.interface import Interface
from mora_launch.config.train_config import load_config
from mora_launch.environments.agent_options import CheckedOptions
from mora_launch.jobs import servers
from mora_launch.jobs.servers import ServerGroup
from mora_runtime.errors import SettingsError
from mora_runtime.process.run_directory import RunDirectory
from mora_runtime.process.supervisor import Supervisor
from mora_training.training_settings import TrainingServerSettings

TINY = Path(__file__).parents[3] / "configs" / "tiny.yaml"


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[TrainingServerSettings]:
    """Settings of the servers that would have been started."""
    found: list[TrainingServerSettings] = []
    monkeypatch.setattr(servers, "start_server", lambda supervisor, run, settings, environment: found.append(settings))
    return found


@pytest.mark.parametrize("trains", [False, True])
def test_the_settings_of_an_agent_reach_its_server(
    started: list[TrainingServerSettings], tmp_path: Path, trains: bool
) -> None:
    config = load_config(TINY, ["agents.video.attention=[flash, math]", "agents.video.tf32=all"])
    answer = CheckedOptions(
        protocol=1, options={}, components=(), interface=Interface(), weights="transformer", weights_folder=None
    )
    checked = {name: answer for name, _ in config.agents.items()}
    with RunDirectory.create(tmp_path / "run", lock=True) as run, Supervisor(print) as supervisor:
        group = ServerGroup(config, checked, run, train=trains)
        group.start(supervisor, 1, 1, group.roles)
    by_name: dict[str, Any] = {each.name: (each.attention, each.tf32, each.cudnn_benchmark) for each in started}
    assert by_name == {
        "image": (("cudnn", "flash", "efficient", "math"), "convolutions", trains),
        "video": (("flash", "math"), "all", trains),
    }


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("attention=[]", "at least 1 item"),
        ("attention=[flash, flash]", "expected each kernel at most once"),
        ("attention=[xformers]", "'cudnn', 'flash', 'efficient' or 'math'"),
        ("tf32=some", "'none', 'convolutions' or 'all'"),
    ],
)
def test_kernels_that_do_not_exist_are_refused(change: str, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        load_config(TINY, [f"agents.video.{change}"])
