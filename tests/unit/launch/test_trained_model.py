"""`RUN[:STEP]` names a checkpoint, and nothing else."""

from pathlib import Path

import pytest
from mora_launch.checkpoints.trained_model import named_checkpoint, untrained_sha256
from mora_launch.config.train_config import load_config
from mora_runtime.errors import CheckpointError

ROOT = Path(__file__).resolve().parents[3]


def test_a_run_and_a_step_are_told_apart(tmp_path: Path) -> None:
    odd = tmp_path / "run:7"
    odd.mkdir()
    assert named_checkpoint("runs/a") == (Path("runs/a"), None)
    assert named_checkpoint("runs/a:12") == (Path("runs/a"), 12)
    assert named_checkpoint(str(odd)) == (odd, None)
    assert named_checkpoint(f"{odd}:3") == (odd, 3)
    with pytest.raises(CheckpointError, match="expected RUN or RUN:STEP"):
        named_checkpoint("runs/a:last")


def test_missing_weights_have_a_name_instead_of_a_hash() -> None:
    config = load_config(ROOT / "configs" / "mora-osp-8xh100.yaml", [])
    assert all(text.startswith("not on this machine") for text in untrained_sha256(config).values())
