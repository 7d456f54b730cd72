"""An environment outside of the checkout: it is built, passes its tests, and its agents train in chains with ours."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mora_launch.environments.environment import Environment
from safetensors.torch import load_file

from .mora_process import ROOT, MoraTrain

EXAMPLE = ROOT / "examples" / "my_environment"
WEIGHTS = "diffusion_pytorch_model.safetensors"
SHORT = ("training.batch_size=2", "training.micro_batch_size=1", "data.num_clips=4", "training.checkpoint_every=2")
# Built once for all tests here, with packages of its own, which takes about a minute.
pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A copy of the example somewhere else; what the launcher builds for it is removed afterwards."""
    copy = tmp_path_factory.mktemp("elsewhere") / "my_environment"
    shutil.copytree(EXAMPLE, copy, ignore=shutil.ignore_patterns("__pycache__", ".pytest_cache"))
    venv = Environment.of_folder(copy).venv
    assert venv is not None
    try:
        built = subprocess.run(
            [str(ROOT / "mora"), "env", "build", str(copy)], capture_output=True, text=True, check=False, timeout=600
        )
        assert built.returncode == 0, built.stderr
        yield copy
    finally:
        if venv.folder.is_symlink():
            venv.folder.unlink()
        else:
            shutil.rmtree(venv.folder, ignore_errors=True)


def trained(run: Path, config: Path, *changes: str, resume: bool = False) -> list[dict[str, Any]]:
    """Train to the end; returns the metrics of all steps."""
    code, said = MoraTrain(run, changes, *(["--resume"] if resume else []), config=str(config)).finish()
    assert code == 0, said
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def test_its_own_tests_pass(folder: Path) -> None:
    venv = Environment.of_folder(folder).venv
    assert venv is not None
    command = [str(venv.python), "-m", "pytest", "-q", "-p", "no:cacheprovider", str(folder / "tests")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr


def test_its_stylist_trains_between_two_agents_of_ours_and_resumes(folder: Path, tmp_path: Path) -> None:
    run, config = tmp_path / "run", folder / "chain.yaml"
    first = trained(run, config, *SHORT, "training.num_steps=2", "samples.enabled=false")
    steps = trained(run, config, *SHORT, "training.num_steps=4", resume=True)
    assert [step["step"] for step in steps] == [0, 1, 2, 3]
    assert steps[:2] == first, "the steps before the interruption stay"
    assert all(step["gradient_norm"]["style"] > 0.0 for step in steps)
    assert all(step["z_norm"]["style"] > 0.0 for step in steps)
    saved = [run / "checkpoints" / f"step-{number:08}" / "style" / "weights" / WEIGHTS for number in (2, 4)]
    before, halfway, after = (load_file(path) for path in (ROOT / "models" / "tiny" / "stylist" / WEIGHTS, *saved))
    for name in before:
        assert (halfway[name] != before[name]).any(), name
        assert (after[name] != halfway[name]).any(), name
    assert (run / "samples" / "after-0-style.png").is_file(), "the samples show what it made"


def test_its_critic_trains_its_stylist(folder: Path, tmp_path: Path) -> None:
    steps = trained(tmp_path / "run", folder / "taste.yaml", "samples.enabled=false")
    losses = [step["loss"] for step in steps]
    assert len(losses) == 20
    assert max(losses[15:]) < 0.1 * losses[0], losses
    weights = load_file(tmp_path / "run" / "checkpoints" / "step-00000020" / "image" / "weights" / WEIGHTS)
    original = load_file(ROOT / "models" / "tiny" / "sd3" / "transformer" / WEIGHTS)
    assert all((weights[name] == original[name]).all() for name in original), "an agent that does not train is frozen"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("chain=[style,video]", "chain: `style` takes `images` (images), but it comes first"),
        ("chain=[image,styl,video]", "there is no agent `styl`; did you mean `style`?"),
        ("agents.style.kind=stylits", "unknown kind of agent `stylits`; did you mean `stylist`?"),
        ("agents.style.options.modle=x", "modle: unknown key; did you mean `model`?"),
        ("agents.style.environment=mina", "unknown environment `mina`; did you mean `mine`?"),
    ],
)
def test_a_mistake_is_refused_before_anything_loads(folder: Path, tmp_path: Path, change: str, told: str) -> None:
    code, said = MoraTrain(tmp_path / "run", [change], config=str(folder / "chain.yaml")).finish()
    assert code != 0
    assert told in " ".join(said.split()), said
    assert not (tmp_path / "run" / "roles").exists()
