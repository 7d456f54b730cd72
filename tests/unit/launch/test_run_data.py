"""The data of a run that continues: what has not changed is not decoded again, what has is checked and told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from mora_data import dataset
from mora_data.sample import Sample
from mora_data.video_writer import write_video
from mora_launch.config.train_config import TrainConfig, load_config
from mora_launch.environments.venvs import ROOT
from mora_launch.resuming.run_data import changed_files, new_dataset, own_dataset
from mora_runtime.errors import DatasetError

AGENTS = ("image", "video")


@pytest.fixture
def config(tmp_path: Path) -> TrainConfig:
    folder = tmp_path / "clips"
    for number, name in enumerate("ab"):
        write_video(folder / f"{name}.mp4", np.full((12, 64, 64, 3), 60 * (number + 1), np.uint8), 8.0)
        (folder / f"{name}.txt").write_text(name)
    return load_config(ROOT / "configs" / "tiny.yaml", [f"data={folder}"])


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the videos that are decoded, as a list that grows."""
    names: list[str] = []
    whole = Sample.clip

    def counted(self: Sample, shape: object) -> object:
        names.append(self.video.name)
        return whole(self, shape)  # type: ignore[arg-type]

    monkeypatch.setattr(dataset.Sample, "clip", counted)
    return names


def test_a_resumption_decodes_only_what_has_changed(config: TrainConfig, tmp_path: Path, decoded: list[str]) -> None:
    run = tmp_path / "run"
    new_dataset(config, run, AGENTS)
    assert sorted(decoded) == ["a.mp4", "b.mp4"]
    decoded.clear()
    assert own_dataset(config, run) == run / "dataset.jsonl"
    assert (decoded, changed_files(run)) == ([], [])
    write_video(tmp_path / "clips" / "b.mp4", np.full((12, 64, 64, 3), 9, np.uint8), 8.0)
    assert own_dataset(config, run) == run / "dataset.jsonl"
    assert decoded == ["b.mp4"]
    assert any("b.mp4 has changed since the run started" in line for line in changed_files(run))


def test_without_a_readable_record_everything_is_decoded(
    config: TrainConfig, tmp_path: Path, decoded: list[str]
) -> None:
    run = tmp_path / "run"
    new_dataset(config, run, AGENTS)
    for content in (None, "no json"):
        decoded.clear()
        (run / "files.json").unlink()
        if content is not None:
            (run / "files.json").write_text(content)
        own_dataset(config, run)
        assert sorted(decoded) == ["a.mp4", "b.mp4"]
        (run / "files.json").touch()


def test_a_clip_that_is_gone_is_refused(config: TrainConfig, tmp_path: Path) -> None:
    run = tmp_path / "run"
    new_dataset(config, run, AGENTS)
    (tmp_path / "clips" / "a.mp4").unlink()
    with pytest.raises(DatasetError, match=r"dataset.jsonl:1: .*a\.mp4: cannot be read as a video: No such file"):
        own_dataset(config, run)


def test_several_captions_of_a_clip_decode_it_once(config: TrainConfig, tmp_path: Path, decoded: list[str]) -> None:
    file = tmp_path / "clips" / "data.jsonl"
    file.write_text('{"prompts": ["one", "two", "three"], "video": "a.mp4"}\n')
    settings = config.data.model_copy(update={"path": str(file)})
    resolved = dataset.resolve_dataset(settings, config.clip, tmp_path / "run", AGENTS)
    assert decoded == ["a.mp4"]
    assert len(dataset.read_dataset(resolved)) == 3
