"""Joint training of SDXL and Stable Video Diffusion, of three agents with InstructPix2Pix between them, and of Wan.

The models are random, so that no test waits for their pre-training.
"""

from __future__ import annotations

import itertools
import signal
from pathlib import Path

import pytest

from tests.random_models import with_random_models

from .mora_process import MoraTrain
from .parity import parity

pytestmark = [pytest.mark.long, pytest.mark.timeout(1200)]
THREE = "chain=[image, editor, video]"
SMALL = ["training.batch_size=2", "training.micro_batch_size=1", "data.num_clips=2", "losses={video: 1.0}"]


@pytest.mark.parametrize(
    ("config", "changes", "counts"),
    [
        # parameters of the agents, and a z each
        pytest.param("tiny-svd.yaml", [], {"image": 292, "video": 424}, id="SDXL -> SVD"),
        pytest.param("tiny-svd.yaml", [THREE], {"image": 292, "editor": 208, "video": 424}, id="SDXL -> IP2P -> SVD"),
        pytest.param("tiny-wan.yaml", [], {"image": 66, "video": 87}, id="SD3 -> Wan"),
    ],
)
def test_gradients_are_bit_identical_to_one_process_and_the_loss_falls_as_there(
    config: str, changes: list[str], counts: dict[str, int], tmp_path: Path
) -> None:
    rates = [f"agents.{name}.learning_rate=1e-4" for name in counts]
    path = str(with_random_models(config, tmp_path))
    found = parity(tmp_path, path, [*SMALL, *rates, *changes], num_steps=8)
    assert found["bit_identical"] is True
    assert found["agents"] == list(counts)
    assert found["num_parameters_compared"] == sum(counts.values()) + len(counts)
    # all but the parts of SD3's last block that cannot reach the image
    num_dead = 2 if config == "tiny-wan.yaml" else 0
    assert found["num_with_nonzero_gradient"] == found["num_parameters_compared"] - num_dead
    losses = found["losses"]
    assert losses == pytest.approx(found["losses_of_one_process"], rel=1e-6)
    assert all(after < before for before, after in itertools.pairwise(losses))


def content(run: Path, step: int) -> dict[str, bytes]:
    """The files of a checkpoint, but for its manifest, which names the run."""
    folder = run / "checkpoints" / f"step-{step:08d}"
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "manifest.json"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_a_killed_job_of_three_agents_continues_to_the_same_bytes(tmp_path: Path) -> None:
    config = str(with_random_models("tiny-svd.yaml", tmp_path))
    changes = [THREE, *SMALL, "training.num_steps=6", "training.checkpoint_every=2", "samples.enabled=false"]
    code, said = MoraTrain(tmp_path / "whole", changes, config=config).finish()
    assert code == 0, said
    job = MoraTrain(tmp_path / "cut", changes, config=config)
    job.read_until(lambda line: line.startswith("step 3/6"))
    job.process.kill()
    assert job.finish()[0] == -signal.SIGKILL
    assert job.nothing_left()
    code, said = MoraTrain(tmp_path / "cut", changes, "--resume", config=config).finish()
    assert code == 0, said
    whole, cut = content(tmp_path / "whole", 6), content(tmp_path / "cut", 6)
    assert {name.partition("/")[0] for name in whole} == {"image", "editor", "video", "coordinator"}
    assert set(whole) == set(cut)
    assert [name for name in whole if whole[name] != cut[name]] == []
