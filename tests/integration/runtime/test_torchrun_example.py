"""A remote module inside a plain torchrun script with DistributedDataParallel."""

import re
import subprocess
from pathlib import Path

import pytest
from mora_launch.environments.catalog import checkout_environments
from mora_launch.environments.venvs import CONTROL

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.timeout(300)
def test_two_ranks_with_a_remote_module_train_like_one_process() -> None:
    other = str(checkout_environments()["opensora"].python)
    done = subprocess.run(
        [
            str(CONTROL.python), "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
            str(ROOT / "examples" / "torchrun_remote_module.py"), other,
        ],
        capture_output=True, text=True, check=False, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = re.search(r"2 ranks against one process: largest difference of a weight (\S+)", done.stdout)
    assert said is not None, done.stdout
    assert 0.0 <= float(said[1]) < 1e-6
