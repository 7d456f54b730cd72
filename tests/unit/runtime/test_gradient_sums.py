"""Gradients of bfloat16 parameters add up in float32, over micro-batches and over replicas."""

from __future__ import annotations

from pathlib import Path

import pytest
from two_ranks import answers_of_two_ranks

# In bfloat16, 1 + 1/512 is 1: a sum in bfloat16 would lose every small term.
REPLICA = """
import json, sys
import torch
from mora_training.process_group import join_group
from mora_training.sharded_optimizer import ShardedOptimizer, local_gradient
from mora_training.training_settings import GroupSettings, OptimizerSettings

rank, path, stage = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
join_group(GroupSettings(rank=rank, world_size=2, rendezvous=f"file://{path}"), torch.device("cpu"))
module = torch.nn.Linear(8, 8, bias=False).to(torch.bfloat16)
torch.nn.init.zeros_(module.weight)
optimizer = ShardedOptimizer(module, [[module.weight]], OptimizerSettings(kind="sgd", weight_decay=0, zero_stage=stage))

def step(values):
    for value in values:
        (module.weight * value).sum().backward()
    local = local_gradient(module.weight).flatten()[0].item()
    report = optimizer.prepare()
    optimizer.commit([0.0], 1.0)
    return [local, report.squared_norm / 64]

large, small = [1.0], [1 / 512] * 64
told = [step([*large, *small]), step(large if rank == 0 else small[:1]), step([0.25])]
optimizer.prepare()
told.append(module.weight.grad is None and getattr(module.weight, "grad_accum", None) is None)
print(json.dumps(told))
"""


@pytest.mark.parametrize("stage", [1, 2])
def test_small_terms_are_not_lost(stage: int, tmp_path: Path) -> None:
    told = answers_of_two_ranks(REPLICA, tmp_path / "group", str(stage))
    over_micro_batches, over_replicas, next_step = 1 + 64 / 512, (1 + 1 / 512) / 2, 0.25
    for rank, own in enumerate((1.0, 1 / 512)):
        assert told[rank][0] == [over_micro_batches, pytest.approx(over_micro_batches**2, abs=1e-12)]
        assert told[rank][1] == [own, pytest.approx(over_replicas**2, abs=1e-12)]
        assert told[rank][2] == [next_step, pytest.approx(next_step**2, abs=1e-12)], "nothing is left of earlier steps"
        assert told[rank][3]
