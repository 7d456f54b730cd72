"""One running chain of tiny models for all tests of this folder, and the same chain in a single process."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT))  # the benchmarks are not installed; tests share their chain

from mora_launch.config.train_config import load_config  # noqa: E402

from benchmarks.chain_session import ChainSession, SingleProcessTwin, chain_session  # noqa: E402

from .mora_process import QUICK, train  # noqa: E402

SMALL = [
    "training.batch_size=4",
    "training.micro_batch_size=1",
    "data.num_clips=4",
    # through all denoising steps, so that gradients can be held against finite differences of the whole chain
    "agents.image.options.gradient_steps=all",
]


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChainSession]:
    config = load_config(ROOT / "configs" / "tiny.yaml", SMALL)
    with chain_session(config, tmp_path_factory.mktemp("chain") / "run") as started:
        yield started


@pytest.fixture(scope="module")
def twin(session: ChainSession, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SingleProcessTwin]:
    """The single-process chain, made once like the session; tests take steps in both or in neither."""
    with SingleProcessTwin(session.write_spec(tmp_path_factory.mktemp("twin"))) as started:
        yield started


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run of four steps with samples."""
    run = tmp_path_factory.mktemp("jobs") / "finished"
    said = train(run, [*QUICK, "training.num_steps=4", "training.checkpoint_every=2", "samples.enabled=true"])
    assert "finished 4 steps" in said
    assert "294,592" in said, "the table of parameter counts is printed"
    return run
