"""Local multimodal judges through the tensor store, in a server that lives only while they are asked."""

import subprocess
from pathlib import Path

import pytest
from mora_data.moving_shapes import made_clip
from mora_data.settings import ClipShape
from mora_launch.environments.catalog import checkout_environments
from mora_launch.environments.venvs import ROOT
from mora_launch.rounds.judging.criteria import CRITERIA
from mora_launch.rounds.judging.judge import Judge, Question
from mora_launch.rounds.judging.judges import open_judges
from mora_launch.rounds.settings import SynthesisSettings
from mora_runtime import RunDirectory
from mora_runtime.errors import SettingsError
from mora_runtime.schema import read_settings

SHAPE = ClipShape(num_frames=9, height=64, width=64, fps=8)
QUESTION = Question("a red circle", CRITERIA["flicker"], tuple(made_clip(index, SHAPE)[1] for index in range(4)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("multimodal")
    command = [str(checkout_environments()["sd3"].python), "-m", "mora_env_sd3", "tiny", "multimodal", str(path)]
    subprocess.run(command, check=True, capture_output=True, timeout=120, cwd=ROOT)
    return path


def judges(folder: Path, **changes: object) -> tuple[Judge, Judge]:
    local = {"dtype": "float32", "max_new_tokens": 24, **changes}
    names = ("llava-onevision", "qwen2-vl")
    each = [{"kind": "local", "local": {"model": str(folder / name), **local}} for name in names]
    return open_judges(read_settings(SynthesisSettings, {"judges": each}, source="test"), checkout_environments())


def test_both_judges_get_the_videos_and_their_prose_counts_as_abstention(folder: Path, tmp_path: Path) -> None:
    other = Question(QUESTION.prompt, QUESTION.criterion, QUESTION.clips[::-1])
    with RunDirectory.create(tmp_path / "run", lock=True) as directory:
        for judge in judges(folder):
            with judge.session(directory):
                first, again, other_answer = (judge.rank(question) for question in (QUESTION, QUESTION, other))
            assert first == again
            assert first.ranking is None
            assert first.note == "two answers could not be read: it has no line `RANKING: ...`"
            assert len(first.raw) == 2
            assert all(first.raw)
            assert first.raw != other_answer.raw


def test_a_late_answer_is_an_abstention(folder: Path, tmp_path: Path) -> None:
    slow = judges(folder, max_new_tokens=6000, timeout_s=0.05)[1]
    with RunDirectory.create(tmp_path / "run", lock=True) as directory, slow.session(directory):
        answer = slow.rank(QUESTION)
    assert answer.ranking is None
    assert answer.raw == ()
    assert "gave no answer" in answer.note


def test_a_folder_without_weights_is_named_before_anything_starts(folder: Path) -> None:
    with pytest.raises(SettingsError, match=r"judge-0\.options: .*found none; is it complete"):
        judges(folder, model=str(folder))
