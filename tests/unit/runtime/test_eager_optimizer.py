"""An optimizer steps without torch's compiler, which takes seconds to import, and makes the same bits."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mora_training.eager_optimizer import mark_eager, step_eagerly

_TRAINS = """
import sys, torch
from pathlib import Path
from mora_training.process_group import join_group
from mora_training.sharded_optimizer import ShardedOptimizer
from mora_training.training_settings import GroupSettings, OptimizerSettings
join_group(GroupSettings(rank=0, world_size=1, rendezvous="file://" + sys.argv[1]), torch.device("cpu"))
model = torch.nn.Linear(4, 4)
optimizer = ShardedOptimizer(model, [list(model.parameters())], OptimizerSettings(ema_decay=0.9))
before = model.weight.detach().clone()
model(torch.ones(1, 4)).sum().backward()
assert optimizer.prepare().finite
optimizer.commit([0.1], 1.0)
assert not torch.equal(model.weight, before)
optimizer.load_state(optimizer.state())
print(sorted(name for name in sys.modules if name.startswith("torch._dynamo")))
"""


@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.SGD])
def test_an_eager_step_makes_the_bits_of_torchs_own(kind: type[torch.optim.Optimizer]) -> None:
    mark_eager(torch.optim.Optimizer)
    start = torch.randn(64, generator=torch.Generator().manual_seed(0))
    trained = []
    for is_eager in (False, True):
        parameter = torch.nn.Parameter(start.clone())
        optimizer = kind([{"params": [parameter]}], lr=0.1, weight_decay=0.01)  # type: ignore[call-arg]
        if is_eager:
            step_eagerly(optimizer)
        for number in range(3):
            parameter.grad = torch.sin(start * (number + 1))
            optimizer.step()
            optimizer.zero_grad()
        trained.append(parameter.detach())
    assert torch.equal(*trained)


def test_a_training_process_never_imports_the_compiler(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _TRAINS, str(tmp_path / "meeting")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().splitlines()[-1] == "[]"
