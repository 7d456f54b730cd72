"""Answers of metric agents, settings of metrics, decoding: what needs no server."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mora_data.video_writer import write_lossless
from mora_launch.config.train_config import load_config
from mora_launch.evaluation.command import check_mode
from mora_launch.evaluation.config import load_evaluation, roles_of
from mora_launch.evaluation.measuring.decoded_video import VideoTooLarge, decode
from mora_launch.evaluation.measuring.measurements import numbers_of
from mora_launch.evaluation.measuring.plan import Task
from mora_launch.evaluation.measuring.result import Key
from mora_launch.evaluation.settings import EvaluationSettings
from mora_launch.evaluation.suite.dimensions import QUALITY
from mora_launch.evaluation.suite.video_file import VideoFile
from mora_launch.resuming.drift import differences
from mora_runtime.errors import BadArgument, DatasetError, ProtocolError, SettingsError

ROOT = Path(__file__).resolve().parents[3]
TOYS = ROOT / "tests" / "toy_agents" / "metrics.yaml"
TASK = Task(VideoFile(Path("a.mp4"), "a.mp4"), Key("a", "motion_smoothness", "1", "s"), "amt", {})


def test_the_numbers_of_an_answer_are_floats_and_lists() -> None:
    assert numbers_of({"score": 1, "weight": 2.0, "still": True}, TASK) == {"score": 1.0, "weight": 2.0, "still": 1.0}


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["score", "detail"])
def test_a_number_that_is_not_finite_is_a_refusal(name: str, number: float) -> None:
    with pytest.raises(BadArgument, match=f"`{name}` is not finite"):
        numbers_of({"score": 0.5, "weight": 1.0, name: number}, TASK)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"score": 0.5}, "expected a number `weight`"),
        ({"score": "good", "weight": 1.0}, "expected a number `score`"),
        ({"score": 0.5, "weight": 0.0}, "expected a weight above 0"),
        ({"score": 0.5, "weight": 1.0, "note": "fine"}, "expected numbers as `note`"),
    ],
)
def test_an_answer_of_another_form_is_a_fault_of_the_agent(answer: dict[str, Any], said: str) -> None:
    with pytest.raises(ProtocolError, match=said):
        numbers_of(answer, TASK)


def test_a_user_names_only_what_differs_from_vbenchs_metrics() -> None:
    settings = EvaluationSettings.model_validate({"metrics": {"raft": {"devices": ["cuda:1"], "num_servers": 2}}})
    raft = settings.all_metrics()["raft"]
    assert raft.devices == ("cuda:1",)
    assert raft.dimensions == ("dynamic_degree", "temporal_flickering")
    assert set(settings.metrics_for(QUALITY)) == {"dino", "clip", "amt", "raft", "aesthetic", "musiq"}
    assert settings.metrics_for(QUALITY)["raft"].dimensions == ("dynamic_degree",)
    assert roles_of(settings.metrics_for(("dynamic_degree",))) == ["raft.0", "raft.1"]


def test_another_metric_takes_a_dimension_over() -> None:
    own = {"mine": {"environment": "toys", "dimensions": ["imaging_quality"]}}
    settings = EvaluationSettings.model_validate({"metrics": own})
    assert set(settings.metrics_for(("imaging_quality",))) == {"mine"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ("evaluation.metrics.mine.environment=toys", "name its `dimensions`"),
        ("evaluation.metrics.dino.dimensions=[beauty]", "unknown beauty"),
        ("evaluation.metrics.dino.environment=toy", "did you mean `toys`"),
        ("evaluation.max_video_nbytes=99999999999", "at most max_decoded_nbytes"),
        ("evaluation.metric={}", "evaluation.metric"),
    ],
)
def test_wrong_settings_are_refused(changes: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        load_evaluation(TOYS, [changes])


def test_a_configuration_of_training_can_be_used_for_its_evaluation() -> None:
    change = "evaluation.metrics.dino.num_servers=3"
    config = load_evaluation(ROOT / "configs" / "tiny.yaml", [change])
    assert config.evaluation == load_config(ROOT / "configs" / "tiny.yaml", [change]).evaluation
    served = config.served(config.evaluation.metrics_for(("subject_consistency", "motion_smoothness")))
    assert served.replicas == 3
    assert {name: agent.devices for name, agent in served.agents.items()} == {"dino": ("cpu",) * 3, "amt": ("cpu",) * 3}


def test_a_run_may_continue_with_other_metrics() -> None:
    configs = [
        load_config(ROOT / "configs" / "tiny.yaml", [f"evaluation.metrics.raft.num_servers={number}"])
        for number in (1, 2)
    ]
    found = differences(*configs)
    assert found
    assert all(each.may_differ for each in found)


def test_long_mode_is_refused_by_name() -> None:
    check_mode("short")
    with pytest.raises(SettingsError, match="mode for long videos"):
        check_mode("long")


def test_a_video_is_decoded_whole_with_its_rate(tmp_path: Path) -> None:
    clip = np.random.default_rng(0).integers(0, 256, (5, 32, 48, 3), dtype=np.uint8)
    write_lossless(tmp_path / "a.mkv", clip, 12.0)
    found = decode(tmp_path / "a.mkv", clip.nbytes)
    assert np.array_equal(np.stack(found.frames), clip)
    assert found.fps == 12.0


def test_a_video_that_is_too_large_or_breaks_off_is_refused(tmp_path: Path) -> None:
    clip = np.random.default_rng(0).integers(0, 256, (24, 32, 48, 3), dtype=np.uint8)
    write_lossless(tmp_path / "a.mkv", clip, 4.0)
    with pytest.raises(VideoTooLarge, match=r"expected at most 9215 bytes decoded .* got more in 2 frames of 48x32"):
        decode(tmp_path / "a.mkv", 2 * clip[0].nbytes - 1)
    content = (tmp_path / "a.mkv").read_bytes()
    (tmp_path / "half.mkv").write_bytes(content[: len(content) // 2])
    with pytest.raises(
        DatasetError, match=r"half\.mkv: ends at .* of 6.00 s; a part of a video would be measured as the whole"
    ):
        decode(tmp_path / "half.mkv", clip.nbytes)
