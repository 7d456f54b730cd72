"""Generation of VBench's suite: names, seeds, resumption, and refusals of a folder with other videos."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from instant_server import SIDE, TINY, InstantPool
from mora_data.clips import open_video
from mora_launch.config.train_config import TrainConfig, load_config
from mora_launch.evaluation.suite import generation
from mora_launch.evaluation.suite.generation import generate_suite, suite_orders
from mora_launch.serving.work_queue import Work
from mora_launch.tasks.media import read_metadata
from mora_runtime.errors import RoleFailed, SettingsError
from rich.console import Console

DIMENSIONS = ("subject_consistency", "background_consistency")


class Pool(InstantPool):
    """Fails all work after so many clips."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.workers = [object()]
        self.most = most

    def submit(self, capability: str, sample: dict[str, Any], shared: dict[str, Any], *rest: Any, **more: Any) -> Work:
        if capability == "image_to_video":
            self.most -= 1
            if self.most < 0:
                raise RoleFailed("the servers have died")
        return super().submit(capability, sample, shared, *rest, **more)


@pytest.fixture
def config() -> TrainConfig:
    return load_config(TINY, ["serving.max_batch={}"])


def made(
    config: TrainConfig, folder: Path, monkeypatch: pytest.MonkeyPatch, *, most: int = 100, seed: int = 0, **more: Any
) -> Pool:
    pool = Pool(most)
    servers = SimpleNamespace(pool=pool)
    monkeypatch.setattr(generation, "RunningServers", lambda *_: contextlib.nullcontext(servers))
    directory: Any = None
    generate_suite(config, suite_orders(DIMENSIONS, seed, 6), folder, directory, Console(quiet=True), **more)
    return pool


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.mp4")}


def test_videos_have_the_names_of_the_suite_and_record_their_seeds(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(config, tmp_path, monkeypatch)
    orders = {order.file: order for order in suite_orders(DIMENSIONS, 0, 6)}
    assert set(files(tmp_path)) == set(orders)
    lines = [json.loads(line) for line in (tmp_path / "made.jsonl").read_text().splitlines()]
    assert {line["file"]: line["seed"] for line in lines} == {name: order.seed for name, order in orders.items()}
    for name, content in files(tmp_path).items():
        assert read_metadata(content)["mora"]["seed"] == orders[name].seed


def test_a_generation_that_ended_early_makes_the_rest_and_the_same_files(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(config, tmp_path / "whole", monkeypatch)
    with pytest.raises(RoleFailed, match="the servers have died"):
        made(config, tmp_path / "parts", monkeypatch, most=2)
    before = files(tmp_path / "parts")
    assert 0 < len(before) <= 2
    (tmp_path / "parts" / next(iter(before))).unlink()
    pool = made(config, tmp_path / "parts", monkeypatch)
    assert 100 - pool.most == 6 - len(before) + 1
    assert files(tmp_path / "parts") == files(tmp_path / "whole")


def test_another_model_size_or_seed_is_refused_in_the_same_folder(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(config, tmp_path, monkeypatch)
    with pytest.raises(SettingsError, match=r"made with seed \d+, expected"):
        made(config, tmp_path, monkeypatch, seed=1)
    with pytest.raises(SettingsError, match=r"another model \(its size differ"):
        made(config, tmp_path, monkeypatch, size=(64, 64))
    other = load_config(TINY, ["serving.max_batch={}", "agents.image.options.guidance_scale=9.0"])
    with pytest.raises(SettingsError, match=r"another model \(its agents differ"):
        made(other, tmp_path, monkeypatch)
    faster = load_config(TINY, ["serving.servers.image=2"])
    assert made(faster, tmp_path, monkeypatch).most == 100


def test_videos_can_be_resized(config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(config, tmp_path, monkeypatch, size=(4 * SIDE, 5 * SIDE))
    with open_video(next(tmp_path.glob("*.mp4"))) as video:
        assert next(iter(video.frames())).size == (4 * SIDE, 5 * SIDE)
