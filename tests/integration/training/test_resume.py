"""A run is continued with its own configuration and data, and every drift is refused before anything is written."""

import json
import signal
from pathlib import Path

import pytest

from .mora_process import ROOT, MoraTrain
from .test_jobs import losses, state_files

pytestmark = pytest.mark.timeout(400)
TOYS = str(ROOT / "tests" / "toy_agents" / "pair.yaml")
CHANGES = ["training.batch_size=2", "samples.enabled=false", "training.num_steps=6", "training.checkpoint_every=2"]

ADAPTED = "agents.image.trainable={scope: patterns, patterns: ['*']}"


def start(run: Path, changes: list[str], *options: str) -> MoraTrain:
    return MoraTrain(run, changes, *options, config=TOYS)


def go_on(run: Path, *changes: str) -> tuple[int, str]:
    """Continue a run without naming a configuration."""
    return MoraTrain(run, changes, command=["train", "--resume", "--run", str(run)]).finish()


def finished(run: Path, *changes: str) -> Path:
    code, said = start(run, [*CHANGES, *changes]).finish()
    assert code == 0, said
    return run


def cut(run: Path, *changes: str) -> Path:
    """A run that was stopped before its end."""
    job = start(run, [*CHANGES, *changes, "training.num_steps=50000"])
    job.read_until(lambda line: line.startswith("step 3/"))
    job.process.send_signal(signal.SIGINT)
    code, said = job.finish()
    assert code == 130, said
    return run


def folder_content(run: Path) -> dict[str, bytes]:
    return {str(path.relative_to(run)): path.read_bytes() for path in sorted(run.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of the user's: what a run of its own drew, named by a file elsewhere."""
    source = finished(tmp_path_factory.mktemp("source") / "run", "data.num_clips=3")
    path = tmp_path_factory.mktemp("mine") / "clips.jsonl"
    lines = [
        json.dumps({"prompt": f"clip {number}", "video": str(source / "data" / "clips" / f"{number:03d}.mp4")})
        for number in range(3)
    ]
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def test_a_run_without_a_named_configuration_continues_to_the_bytes_of_an_undisturbed_one(
    clips: Path, tmp_path: Path
) -> None:
    whole = finished(tmp_path / "whole", f"data={clips}", "seed=7", "training.num_steps=8")
    stopped = cut(tmp_path / "cut", f"data={clips}", "seed=7")
    done = len(losses(stopped))
    last = max(8, done + 2)
    if last != 8:
        whole = finished(tmp_path / "longer", f"data={clips}", "seed=7", f"training.num_steps={last}")
    recorded = (stopped / "config.json").read_bytes()
    code, said = go_on(stopped, f"training.num_steps={last}")
    assert code == 0, said
    assert f"changed since the last start: training.num_steps: 50000 -> {last}" in said
    assert losses(stopped) == losses(whole)
    assert state_files(stopped, last) == state_files(whole, last)
    assert (stopped / "config.json").read_bytes() == recorded, "the record of the first start stays"
    second = json.loads((stopped / "config-2.json").read_text())
    assert second["training"]["num_steps"] == last
    code, said = go_on(stopped)
    assert code == 0, said
    assert "changed since" not in said, "the last start's configuration is the run's own"
    assert not (stopped / "config-3.json").exists()


def test_every_drift_is_refused_by_key_and_leaves_the_run_as_it_was(clips: Path, tmp_path: Path) -> None:
    run = finished(tmp_path / "run", f"data={clips}", ADAPTED)
    before = folder_content(run)
    drifts = {
        "data.path": [*CHANGES, ADAPTED],  # `--set data=` forgotten
        "agents.image.trainable.scope": [*CHANGES, f"data={clips}"],  # what trains forgotten
        "seed": [*CHANGES, f"data={clips}", ADAPTED, "seed=1"],
        "clip.height": [*CHANGES, f"data={clips}", ADAPTED, "clip.height=16"],
        "training.batch_size": [f"data={clips}", ADAPTED, "training.batch_size=4"],
    }
    for key, changes in drifts.items():
        code, said = start(run, [*changes, "training.num_steps=9"], "--resume").finish()
        assert code == 1, key
        assert f"  {key}: " in said, key
        assert "Traceback" not in said
        assert folder_content(run) == before, key
    code, said = go_on(run, "modulation.mode=none")
    assert code == 1
    assert '  modulation.mode: "learned" -> "none"' in said
    assert folder_content(run) == before
    code, said = go_on(run, "training.num_stepz=9")
    assert code == 1
    assert "num_steps" in said, "the nearest key"
    assert folder_content(run) == before


def test_another_rate_applies_from_the_next_step_on_and_is_told(tmp_path: Path) -> None:
    run = finished(tmp_path / "run")
    code, said = go_on(run, "training.num_steps=8", "agents.video.learning_rate=2e-5")
    assert code == 0, said
    assert "changed since the last start: agents.video.learning_rate: " in said
    assert "-> 2e-05" in said
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(8))
    rates = [line["learning_rate"]["video"] for line in lines]
    assert set(rates[6:]) == {2e-5}
    assert 2e-5 not in rates[:6]


def test_a_changed_clip_is_told_and_a_missing_one_is_refused(clips: Path, tmp_path: Path) -> None:
    run = finished(tmp_path / "run", f"data={clips}")
    videos = [json.loads(line)["video"] for line in clips.read_text().splitlines()]
    first = Path(videos[0])
    content = first.read_bytes()
    try:
        first.write_bytes(Path(videos[1]).read_bytes())
        code, said = go_on(run, "training.num_steps=7")
        assert code == 0, said
        assert f"warning: {first} has changed since the run started" in " ".join(said.split())
        before = folder_content(run)
        first.unlink()
        code, said = go_on(run, "training.num_steps=8")
        assert code == 1
        assert first.name in said
        assert folder_content(run) == before
    finally:
        first.write_bytes(content)


def test_a_run_of_another_command_and_a_folder_without_a_run_are_refused(tmp_path: Path) -> None:
    code, said = go_on(tmp_path / "nothing")
    assert code == 1
    assert "no job was started there" in said
    code, said = MoraTrain(tmp_path / "x", command=["train"]).finish()
    assert code == 2
    assert "CONFIG" in said
    run = finished(tmp_path / "run")
    status = json.loads((run / "status.json").read_text())
    (run / "status.json").write_text(json.dumps({**status, "command": "serve"}))
    code, said = go_on(run)
    assert code == 1
    assert "is a run of `mora serve`" in said
