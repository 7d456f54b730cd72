"""VideoTI: captions of pictures and videos are made once, stored, and compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mora_data.video_writer import write_video
from mora_launch.config.train_config import load_config
from mora_launch.environments.catalog import environments_of
from mora_launch.environments.venvs import ROOT
from mora_launch.evaluation.captions.settings import CaptionSettings
from mora_launch.evaluation.captions.video_ti import VideoTi
from mora_launch.evaluation.config import load_evaluation
from mora_launch.evaluation.evaluation import EvaluateOptions, Evaluation
from mora_launch.evaluation.measuring.measurements import Failure
from mora_launch.evaluation.measuring.result import Result
from mora_launch.evaluation.measuring.result_store import ResultStore
from mora_launch.evaluation.output.paper_formulas import cosine
from mora_launch.evaluation.suite.video_file import VideoFile
from mora_runtime.errors import SettingsError
from mora_runtime.files.durable_files import sha256_of
from mora_runtime.process.run_directory import RunDirectory
from PIL import Image
from rich.console import Console

from tests.toy_agents.texts import letter_counts

pytestmark = pytest.mark.timeout(300)
SETTINGS = {
    "local": {"environment": "toys", "model": "toy"}, "embedding": {"environment": "toys", "model": "toy"},
    "num_frames": 4,
}  # fmt: skip
RED, BLUE = (200, 20, 20), (20, 20, 200)


@pytest.fixture
def videos(tmp_path: Path) -> list[tuple[VideoFile, str]]:
    """One from a picture, one whose picture is none, and one without a picture."""
    clip = np.tile(np.array(BLUE, dtype=np.uint8), (6, 32, 32, 1))
    Image.new("RGB", (32, 32), RED).save(tmp_path / "red.png")
    (tmp_path / "text.png").write_text("no picture")
    found = []
    for name, inputs in {"good": ["red.png"], "bad": ["text.png"], "alone": []}.items():
        write_video(tmp_path / f"{name}.mp4", clip[: 5 if name == "bad" else 6], 8.0)
        files = tuple(VideoFile(tmp_path / each, each) for each in inputs)
        video = VideoFile(tmp_path / f"{name}.mp4", name, prompt="make it blue", inputs=files)
        found.append((video, sha256_of(video.path)))
    return found


def scored(videos: list[tuple[VideoFile, str]], output: Path) -> tuple[dict[str, Result], list[Result | Failure]]:
    done: list[Result | Failure] = []
    environments = environments_of(load_config(ROOT / "tests" / "toy_agents" / "pair.yaml", []))
    with (
        RunDirectory.create(output / "servers", lock=True) as directory,
        ResultStore(output / "results.jsonl") as store,
    ):
        settings = CaptionSettings.model_validate(SETTINGS)
        stage = VideoTi(settings, environments, store, max_nbytes=1 << 20, on_done=done.append)
        return stage.run(videos, output, directory), done


def test_captions_are_compared_stored_and_made_once(videos: list[tuple[VideoFile, str]], tmp_path: Path) -> None:
    results, done = scored(videos, tmp_path)
    image, video = "1 frames that turn red", "4 frames that turn blue"
    assert results["good"].details == {
        "image_caption": image, "instruction": "make it blue", "video_caption": video
    }  # fmt: skip
    expected = cosine(letter_counts(f"{image} make it blue"), letter_counts(video))
    assert results["good"].score == pytest.approx(expected, abs=1e-12)
    assert [each.file for each in done if isinstance(each, Failure)] == ["bad"]
    assert set(results) == {"good"}
    lines = [json.loads(line) for line in (tmp_path / "captions.jsonl").read_text().splitlines()]
    assert [(line["file"], line["caption"]) for line in lines] == [("red.png", image), ("good", video)]
    logs = {path: path.stat().st_mtime_ns for path in (tmp_path / "servers" / "logs").iterdir()}
    again, done = scored(videos[:1] + videos[2:], tmp_path)
    assert again["good"] == results["good"]
    assert done == []
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "servers" / "logs").iterdir()} == logs


def test_video_ti_without_a_captioner_is_refused(videos: list[tuple[VideoFile, str]], tmp_path: Path) -> None:
    (tmp_path / "pairs.json").write_text(json.dumps({"good.mp4": "red.png"}))
    options: dict[str, Any] = {"task": "image-to-video", "pairs": tmp_path / "pairs.json", "dimensions": ()}
    config = load_evaluation(ROOT / "tests" / "toy_agents" / "metrics.yaml", [])
    with pytest.raises(SettingsError, match=r"evaluation\.captions: VideoTI needs a model"):
        Evaluation(EvaluateOptions((tmp_path,), "all", output=tmp_path / "out", **options), config, Console())


def test_without_its_model_the_other_metrics_are_measured_and_written(
    videos: list[tuple[VideoFile, str]], tmp_path: Path
) -> None:
    (tmp_path / "pairs.json").write_text(json.dumps({"good.mp4": "red.png"}))
    changes = [
        "evaluation.captions.local.environment=toys", f"evaluation.captions.local.model={tmp_path}",
        "evaluation.captions.local.dtype=float32", "evaluation.captions.embedding.environment=absent",
    ]  # fmt: skip
    config = load_evaluation(ROOT / "tests" / "toy_agents" / "metrics.yaml", changes)
    options = EvaluateOptions(
        (tmp_path / "good.mp4",), "all", ("imaging_quality",), tmp_path / "out", task="image-to-video",
        pairs=tmp_path / "pairs.json",
    )  # fmt: skip
    evaluation = Evaluation(options, config, Console(quiet=True))
    outcome = evaluation.run()
    assert "unknown environment `absent`" in outcome.unmeasured["video_ti"]
    assert [name for name, _ in outcome.results] == ["good.mp4"]
    assert not evaluation.is_complete
