"""A round's files on a full disk, or without one of its videos: an error says what to do, and the round can resume.

Candidates exist already and no model is trained, because the steps between need no model.
"""

import errno
import os
import shutil
from pathlib import Path

import pytest
from hand_made_round import make_round
from mora_data.dataset import resolve_dataset
from mora_launch.config.train_config import TrainConfig, load_config
from mora_launch.jobs.job_servers import JobServers
from mora_launch.rounds import round_runner, store
from mora_launch.rounds.judging.judge import Interrupted
from mora_launch.rounds.judging.judges import open_judges
from mora_launch.rounds.round_runner import RoundRunner
from mora_launch.rounds.store import RoundFolder, SetDecision
from mora_runtime import RunDirectory
from mora_runtime.errors import DatasetError, RoundError, StorageError
from mora_runtime.files.durable_files import replace_text, sha256_of
from rich.console import Console

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def config() -> TrainConfig:
    return load_config(
        ROOT / "configs" / "tiny-rounds.yaml",
        ["synthesis.num_rounds=1", "synthesis.num_evaluation_prompts=0", "synthesis.num_candidates=2"],
    )


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory, config: TrainConfig) -> Path:
    """A run whose first round is planned and has its candidates."""
    return make_round(tmp_path_factory.mktemp("rounds") / "planned", config.clip)


@pytest.fixture
def run(planned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the run; its training ends as if by Ctrl-C."""
    monkeypatch.setattr(round_runner, "train_round", lambda *_: False)
    return Path(shutil.copytree(planned, tmp_path / "run"))


def go_on(run: Path, config: TrainConfig) -> None:
    console = Console(quiet=True)
    with RunDirectory.create(run, lock=True) as directory, JobServers(config, {}, directory, console) as servers:
        RoundRunner(config, {}, directory, open_judges(config.synthesis, {}), servers, console).run()


def facts(run: Path) -> dict[str, str]:
    files = (path for path in (run / "rounds").rglob("*") if path.is_file())
    return {str(path.relative_to(run)): sha256_of(path) for path in files}


def test_a_disk_that_is_full_at_every_file_in_turn_changes_nothing(
    run: Path, planned: Path, config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = Path(shutil.copytree(planned, run.with_name("again")))
    with pytest.raises(Interrupted):
        go_on(run, config)
    expected = facts(run)
    refused: list[str] = []

    def write(path: Path, text: str) -> None:
        if str(path.relative_to(again)) not in refused:
            refused.append(str(path.relative_to(again)))
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace_text(path, text)

    monkeypatch.setattr(store, "replace_text", write)
    for _ in range(len(set(expected) - set(facts(planned)))):
        with pytest.raises(
            StorageError, match=r"the disk is full.*free disk space and run the same command with --resume"
        ):
            go_on(again, config)
    assert {Path(name).name for name in refused} == {
        "verdict-0.json", "verdict-1.json", "decision.json", "dataset.jsonl", "manifest.json", "report.html",
    }  # fmt: skip
    with pytest.raises(Interrupted):
        go_on(again, config)
    assert facts(again) == expected


def test_a_missing_video_is_named_and_the_round_continues_once_it_is_back(run: Path, config: TrainConfig) -> None:
    video = RoundFolder(run, 1).set(1).video(0)
    content = video.read_bytes()
    video.unlink()
    with pytest.raises(RoundError, match=r"round 1, set 2: candidate 1 cannot be judged.*--resume makes the same"):
        go_on(run, config)
    assert RoundFolder(run, 1).set(0).verdict(0) is not None
    video.write_bytes(content)
    with pytest.raises(Interrupted):
        go_on(run, config)


def test_a_missing_or_changed_chosen_video_is_not_used_for_training(run: Path, config: TrainConfig) -> None:
    with pytest.raises(Interrupted):
        go_on(run, config)
    folder = RoundFolder(run, 1)
    decision = folder.set(0).decision()
    assert decision is not None
    assert decision.chosen is not None
    video = folder.set(0).video(decision.chosen)
    content = video.read_bytes()
    video.write_bytes(content + b"x")
    with pytest.raises(RoundError, match=rf"frames.mkv of candidate {decision.chosen} has changed"):
        go_on(run, config)
    video.unlink()
    with pytest.raises(RoundError, match=rf"frames.mkv of candidate {decision.chosen} is missing"):
        go_on(run, config)
    data = config.data.model_copy(update={"path": str(folder.dataset)})
    with pytest.raises(DatasetError, match=r"frames.mkv"):
        resolve_dataset(data, config.clip, run / "data", config.chain_names)
    video.write_bytes(content)
    before = folder.manifest.read_bytes()
    with pytest.raises(Interrupted):
        go_on(run, config)
    assert folder.manifest.read_bytes() == before


def test_a_damaged_verdict_is_named(run: Path, config: TrainConfig) -> None:
    with pytest.raises(Interrupted):
        go_on(run, config)
    (RoundFolder(run, 1).set(0).path / "verdict-0.json").write_text("{")
    with pytest.raises(RoundError, match=r"verdict-0.json: cannot be read .*remove it, then --resume makes it again"):
        go_on(run, config)


def test_a_decision_that_is_taken_back_while_it_is_read_is_none(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = RoundFolder(run, 1).set(0)
    files.write_decision(SetDecision(1, "human", "ann"))
    assert files.decision() is not None
    read = store.read_foreign

    def read_after_undo(path: Path, max_nbytes: int) -> bytes:
        path.unlink()
        return read(path, max_nbytes)

    monkeypatch.setattr(store, "read_foreign", read_after_undo)
    assert files.decision() is None
