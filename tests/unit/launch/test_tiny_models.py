"""Tiny models are made once, if absent or outdated, and whole or not at all."""

from __future__ import annotations

import io
import json
import os
import signal
import stat
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from mora_data.settings import ClipShape
from mora_data.shapes_corpus import write_shapes
from mora_launch.config.train_config import TrainConfig, load_config
from mora_launch.environments import tiny_models
from mora_launch.environments.catalog import checkout_environments
from mora_launch.environments.environment import Environment
from mora_launch.environments.tiny_makers import TinyMakers
from mora_launch.environments.tiny_models import ensure_tiny_models
from mora_launch.environments.venvs import ROOT, Venv
from mora_runtime.errors import EnvironmentFailed, SettingsError
from mora_runtime.files.file_lock import lock_file
from rich.console import Console
from safetensors.numpy import load_file

CONSOLE = Console(quiet=True)
CLIP = ClipShape(num_frames=5, height=32, width=32)


def config(folder: Path, *changes: str, name: str = "shapes") -> TrainConfig:
    places = [f"agents.{agent}.tiny_models={folder / agent}" for agent in ("image", "video")]
    return load_config(ROOT / "configs" / f"{name}.yaml", [*places, *changes])


class Told(io.StringIO):
    """Output of a console; sets an event at its first word of waiting."""

    def __init__(self) -> None:
        super().__init__()
        self.has_waited = threading.Event()

    def write(self, text: str) -> int:
        num = super().write(text)
        if "waiting" in text:
            self.has_waited.set()
        return num


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Records the commands that were run, without folders; each writes one file instead of training."""
    commands: list[str] = []

    def run(makers: TinyMakers, environment: Environment, words: list[str], console: Console | None) -> None:
        _, kind, folder, *more = words
        commands.append(" ".join([environment.package, kind, *(word for word in more if "/" not in word)]))
        Path(folder).mkdir(parents=True)
        (Path(folder) / "weights").write_text(kind)
        (Path(folder) / "weights").chmod(0o600)  # as safetensors does

    monkeypatch.setattr(TinyMakers, "run", run)
    return commands


def test_models_are_made_once_and_again_for_other_clips(tmp_path: Path, made: list[str]) -> None:
    ensure_tiny_models(config(tmp_path), CONSOLE)
    ensure_tiny_models(config(tmp_path), CONSOLE)
    assert sorted(made) == [
        "mora_env_opensora opensora --task shapes --shapes",
        "mora_env_sd3 sd3 --task shapes --shapes",
    ]
    ensure_tiny_models(config(tmp_path, "clip.num_frames=9"), CONSOLE)
    assert len(made) == 4


def test_a_change_of_a_pyproject_makes_no_models_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = checkout_environments()["sd3"]
    before = tiny_models._maker_hash(config(tmp_path).agents["image"], found, CLIP)
    monkeypatch.setattr(Venv, "lock_hash", "another")
    assert tiny_models._maker_hash(config(tmp_path).agents["image"], found, CLIP) == before
    monkeypatch.setattr(Venv, "packages_hash", "another")
    assert tiny_models._maker_hash(config(tmp_path).agents["image"], found, CLIP) != before


def test_random_models_do_not_depend_on_clips(tmp_path: Path, made: list[str]) -> None:
    ensure_tiny_models(config(tmp_path, name="tiny"), CONSOLE)
    ensure_tiny_models(config(tmp_path, "clip.num_frames=5", name="tiny"), CONSOLE)
    assert sorted(made) == ["mora_env_opensora opensora", "mora_env_sd3 sd3"]


def test_two_processes_that_need_the_same_models_make_them_once(tmp_path: Path, made: list[str]) -> None:
    threads = [threading.Thread(target=ensure_tiny_models, args=(config(tmp_path), CONSOLE)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(made) == 2


def test_a_failed_maker_says_why_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = replace(checkout_environments()["sd3"], package="mora_no_such_package")
    monkeypatch.setattr(tiny_models, "environments_of", lambda config: {"sd3": broken})
    wanted = config(tmp_path, "agents.video.tiny_models=null")
    with pytest.raises(EnvironmentFailed, match=r"mora_no_such_package tiny sd3` ended with 1(.|\n)*No module named"):
        ensure_tiny_models(wanted, CONSOLE)
    assert [path.name for path in tmp_path.iterdir()] == [".image.lock"]


def test_the_corpus_is_reproducible_and_some_of_its_captions_are_false(tmp_path: Path) -> None:
    shape = ClipShape(num_frames=5, height=32, width=32)
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        write_shapes(tmp_path / name, shape)
    files = [(tmp_path / name / "clips.safetensors").read_bytes() for name in ("first", "second")]
    assert files[0] == files[1]
    pixels = load_file(tmp_path / "first" / "clips.safetensors")["pixels"]
    captions = json.loads((tmp_path / "first" / "captions.json").read_text())
    assert pixels.shape == (len(captions), 5, 32, 32, 3)
    is_red = (pixels == (220, 50, 40)).all(axis=-1).any(axis=(1, 2, 3))
    says_red = ["red" in caption.split() for caption in captions]
    truth = sum(says for says, is_it in zip(says_red, is_red, strict=True) if is_it) / is_red.sum()
    assert 0.4 < truth < 0.65, "0.35 told, and a quarter of the rest by chance"


@pytest.mark.parametrize("stamp", [None, "link"])
def test_a_folder_with_something_else_in_it_is_never_replaced(
    tmp_path: Path, made: list[str], stamp: str | None
) -> None:
    (tmp_path / "image").mkdir()
    (tmp_path / "image" / "thesis.txt").write_text("precious")
    if stamp is not None:
        (tmp_path / "stamp").write_text("{}")
        (tmp_path / "image" / "mora-stamp.json").symlink_to(tmp_path / "stamp")
    with pytest.raises(SettingsError, match=r"agents\.image\.tiny_models: .*image exists and contains no tiny models"):
        ensure_tiny_models(config(tmp_path), CONSOLE)
    assert (tmp_path / "image" / "thesis.txt").read_text() == "precious"


def test_models_are_not_made_through_a_symbolic_link(tmp_path: Path, made: list[str]) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "image").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SettingsError, match="contains no tiny models"):
        ensure_tiny_models(config(tmp_path), CONSOLE)


def test_two_kinds_with_one_folder_are_refused_because_they_would_replace_each_other(tmp_path: Path) -> None:
    shared = config(tmp_path, f"agents.video.tiny_models={tmp_path / 'image'}")
    with pytest.raises(SettingsError, match=r"agents\.video\.tiny_models: .*image is the folder of `image` too"):
        ensure_tiny_models(shared, CONSOLE)
    assert list(tmp_path.iterdir()) == []


def test_every_user_who_may_enter_the_folder_can_read_the_models(tmp_path: Path, made: list[str]) -> None:
    before = os.umask(0o022)
    try:
        ensure_tiny_models(config(tmp_path, name="tiny"), CONSOLE)
    finally:
        os.umask(before)
    files = [path for path in (tmp_path / "image").rglob("*") if path.is_file()]
    assert len(files) == 2, "the weights and the stamp"
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o644}


def test_a_start_that_waits_for_another_one_to_make_the_models_says_so(tmp_path: Path, made: list[str]) -> None:
    wanted = config(tmp_path, name="tiny")
    told = Told()
    console = Console(file=told, width=200)
    with open(tmp_path / ".image.lock", "w", encoding="utf-8") as other:
        lock_file(other.fileno(), 1.0, shown="lock")
        waiting = threading.Thread(target=ensure_tiny_models, args=(wanted, console))
        waiting.start()
        assert told.has_waited.wait(60)
    waiting.join(60)
    assert not waiting.is_alive()
    assert "waiting for another mora that makes tiny models of the image agent" in told.getvalue()
    assert len(made) == 2


@pytest.fixture
def slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Environment:
    """An environment whose makers write `started` and then need hours."""
    path = tmp_path / "packages" / "slow_package.py"
    path.parent.mkdir()
    path.write_text(f"import pathlib, signal; pathlib.Path({str(tmp_path / 'started')!r}).touch(); signal.pause()")
    monkeypatch.setenv("PYTHONPATH", str(path.parent))
    return replace(checkout_environments()["sd3"], package="slow_package")


def has_started(folder: Path) -> bool:
    deadline = time.monotonic() + 60
    while not (folder / "started").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    return (folder / "started").exists()


def test_a_failed_maker_ends_the_others(tmp_path: Path, slow: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = replace(slow, name="opensora", package="mora_no_such_package")
    monkeypatch.setattr(tiny_models, "environments_of", lambda config: {"sd3": slow, "opensora": broken})
    with pytest.raises(EnvironmentFailed, match="No module named mora_no_such_package"):
        ensure_tiny_models(config(tmp_path, name="tiny"), CONSOLE)
    assert psutil.Process().children() == []


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C raises also where the tests run in the background, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interruption_ends_makers_and_the_wait_for_those_of_another_mora(
    tmp_path: Path, slow: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiny_models, "environments_of", lambda config: {"sd3": slow, "opensora": slow})
    told = Told()

    def interrupt() -> None:
        assert has_started(tmp_path)
        assert told.has_waited.wait(60)
        os.kill(os.getpid(), signal.SIGINT)

    with open(tmp_path / ".video.lock", "w", encoding="utf-8") as other, ThreadPoolExecutor() as threads:
        lock_file(other.fileno(), 1.0, shown="lock")
        threads.submit(interrupt)
        with pytest.raises(KeyboardInterrupt):
            ensure_tiny_models(config(tmp_path, name="tiny"), Console(file=told, width=200))
    assert psutil.Process().children() == []
    assert not (tmp_path / "image").exists()
