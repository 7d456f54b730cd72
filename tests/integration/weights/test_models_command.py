"""`./mora models fetch`, and what the other commands say before and after it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from conftest import MT5, OPEN_SORA, SD3, TOKEN
from fake_hub.hub import FakeHub
from mora_launch.config.train_config import TrainConfig, load_config
from mora_launch.environments.venvs import ROOT
from mora_launch.generation.command import GenerateOptions, generate
from mora_launch.rounds.command import synthesize
from mora_launch.rounds.judging.judges import open_judges
from mora_launch.serving.running_servers import RunningServers
from mora_launch.terminal import terminal
from mora_launch.weights.fetch import fetch_models
from mora_runtime.errors import EndpointFailed, SettingsError, StorageError
from mora_runtime.process.run_directory import RunDirectory

CHANGES = [
    "agents.image.tiny_models=null",
    f"agents.image.options.model={SD3}",
    "agents.video.tiny_models=null",
    f"agents.video.options.model={OPEN_SORA}/93x480p_i2v",
    f"agents.video.options.vae={OPEN_SORA}/vae",
    f"agents.video.options.text_encoder={MT5}",
    "training.num_steps=1", "training.batch_size=1", "training.micro_batch_size=1", "data.num_clips=2",
    "samples.enabled=false",
]  # fmt: skip
ADVICE = "run ./mora models fetch CONFIG"
LINES = [
    f"agents.image.options.model: {SD3} (model_index.json and 14 more) is not on this machine: {ADVICE}",
    f"agents.video.options.model: {OPEN_SORA} (93x480p_i2v/config.json and 3 more) is not on this machine: {ADVICE}",
    f"agents.video.options.text_encoder: {MT5} (config.json and 1 more) is not on this machine: {ADVICE}",
]


@pytest.fixture
def config() -> TrainConfig:
    return load_config(ROOT / "configs" / "tiny.yaml", CHANGES)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [name for name in os.environ if name.startswith(("HF_", "HUGGINGFACE_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    return tmp_path / "hf"


@pytest.fixture
def online(published: FakeHub, home: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    for name, value in published.variables(home, TOKEN).items():
        monkeypatch.setenv(name, value)
    return published


def mora(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    changes = [word for change in CHANGES for word in ("--set", change)]
    return subprocess.run(
        [str(ROOT / "mora"), *words, *changes], capture_output=True, text=True, timeout=280, check=False, cwd=ROOT,
        env={**os.environ, "COLUMNS": "400", **variables},
    )  # fmt: skip


def test_what_is_fetched_trains_without_a_network(online: FakeHub, home: Path, tmp_path: Path) -> None:
    fetched = mora("models", "fetch", "configs/tiny.yaml")
    assert fetched.returncode == 0, fetched.stdout + fetched.stderr
    told = rf"29 files of {SD3}, {OPEN_SORA}, {MT5}, 0.0\d GB to download, 22.62 GB to write as safetensors; .* free"
    assert re.search(told, fetched.stdout), fetched.stdout
    assert "the models of image, video are on this machine" in fetched.stdout
    assert_sent_once(online)

    online.asked.clear()
    dead = {"HF_ENDPOINT": "http://127.0.0.1:9"}
    again = mora("models", "fetch", "configs/tiny.yaml", **dead)
    assert "the models of all 2 agents are on this machine (image, video); nothing was downloaded" in again.stdout
    listed = json.loads(mora("models", "configs/tiny.yaml", "--json", **dead).stdout)
    assert [(agent["weights"], agent["missing"]) for agent in listed.values()] == [("here", []), ("here", [])]
    parts = {part["name"]: part["num_parameters"] for part in listed["image"]["models"]}
    assert parts["transformer"] == 556_736  # counted in the cache, not as published

    pickle = home / "hub" / "models--google--mt5-xxl" / "snapshots"
    for path in pickle.glob("*/pytorch_model.bin"):
        path.unlink()  # no server reads it
    trained = mora("train", "configs/tiny.yaml", "--run", str(tmp_path / "run"))
    assert trained.returncode == 0, trained.stdout + trained.stderr
    assert "finished 1 step" in trained.stdout
    assert online.asked == []  # though the Hub could be reached


def assert_sent_once(hub: FakeHub) -> None:
    """No byte was sent twice, and nothing that no agent loads."""
    files = {f"{name}/{path}": body for name, each in hub.repositories.items() for path, body in each.files.items()}
    assert hub.num_sent == {path: len(files[path]) for path in hub.num_sent}
    assert not any("fp16" in path or "README" in path for path in hub.num_sent)


def test_every_command_refuses_to_start_without_the_weights(config: TrainConfig, tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as refused, RunDirectory.create(tmp_path / "serve") as directory:
        RunningServers(config, directory, terminal())
    assert str(refused.value).splitlines() == LINES
    options = GenerateOptions("text_to_video", "a cloud", 0, enhance=False)
    with pytest.raises(SettingsError, match="is not on this machine"):
        generate(options, config, tmp_path / "out.mp4", terminal())
    with pytest.raises(SettingsError, match="is not on this machine"):
        synthesize(config, run=tmp_path / "rounds", resume=False, console=terminal())
    assert not (tmp_path / "rounds").exists()


def test_training_refuses_and_a_dry_run_only_says_what_is_missing(tmp_path: Path) -> None:
    refused = mora("train", "configs/tiny.yaml", "--run", str(tmp_path / "run"))
    assert refused.returncode == 1
    assert all(line in refused.stdout + refused.stderr for line in LINES)
    assert not (tmp_path / "run").exists()
    planned = mora("train", "configs/tiny.yaml", "--dry-run")  # the published models are too large for a small machine
    assert all(line in planned.stdout for line in LINES)
    assert "image.0" in planned.stdout


def test_the_list_says_what_is_missing() -> None:
    listed = mora("models", "list", "configs/tiny.yaml")
    assert listed.returncode == 0, listed.stdout + listed.stderr
    assert all(line in listed.stdout for line in LINES)


def test_a_judge_on_the_hub_is_refused_and_fetched_like_an_agent(
    config: TrainConfig, online: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = {"kind": "local", "local": {"model": SD3}}
    synthesis = config.synthesis.model_validate({"judges": [judge, judge]})
    from mora_launch.environments.catalog import environments_of

    with pytest.raises(SettingsError, match=rf"^agents.judge-0.options.model: {SD3} .* is not on this machine"):
        open_judges(synthesis, environments_of(config))
    with pytest.raises(EndpointFailed, match=f"{SD3}: expected config.json, model.safetensors there"):
        fetch_models(config.model_copy(update={"synthesis": synthesis}), terminal())


def test_a_disk_that_is_too_small_is_refused_before_the_download(
    config: TrainConfig, online: FakeHub, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(home.parent)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage._replace(free=1_000_000))
    with pytest.raises(StorageError, match=rf"{home}/hub: expected 22.6 GB of free disk for the models, got 0.0 GB"):
        fetch_models(config, terminal())
    assert online.downloads() == []


def test_a_gate_is_told_by_the_launcher_in_one_line(config: TrainConfig, online: FakeHub, monkeypatch: Any) -> None:
    monkeypatch.delenv("HF_TOKEN")
    told = (
        f"^{SD3}: is gated and there is no token: accept its terms at https://huggingface.co/{SD3}, then set HF_TOKEN"
    )
    with pytest.raises(EndpointFailed, match=told):
        fetch_models(config, terminal())
    assert online.downloads() == []


def test_a_launcher_that_is_killed_leaves_no_process_and_no_byte_is_fetched_twice(online: FakeHub, home: Path) -> None:
    name = "transformer/diffusion_pytorch_model.safetensors"
    online.stall_after[name] = 1 << 19
    changes = [word for change in CHANGES for word in ("--set", change)]
    command = [str(ROOT / "mora"), "models", "fetch", "configs/tiny.yaml", *changes]
    launcher = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True, cwd=ROOT
    )
    assert online.stalled.wait(120)
    os.kill(launcher.pid, signal.SIGKILL)
    assert launcher.stdout is not None
    launcher.stdout.read()  # ends when nothing has the pipe any more
    launcher.stdout.close()
    launcher.wait(60)
    online.stall_after.clear()
    done = mora("models", "fetch", "configs/tiny.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
