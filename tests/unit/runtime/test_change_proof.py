"""The first steps prove which trained tensors they change, over all ranks and without copies."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from mora_training.change_proof import ChangeProof
from mora_training.sharded_optimizer import ShardedOptimizer
from two_ranks import answers_of_two_ranks

REPLICA = """
import json, sys
import torch
from mora_training.change_proof import ChangeProof
from mora_training.process_group import join_group
from mora_training.sharded_optimizer import ShardedOptimizer
from mora_training.training_settings import GroupSettings, OptimizerSettings

rank, path, stage = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
join_group(GroupSettings(rank=rank, world_size=2, rendezvous=f"file://{path}"), torch.device("cpu"))
torch.manual_seed(0)
module = torch.nn.Sequential(*[torch.nn.Linear(7, 7) for _ in range(3)]).to(torch.bfloat16)
optimizer = ShardedOptimizer(module, [list(module.parameters())], OptimizerSettings(weight_decay=0.0, zero_stage=stage))
proof = ChangeProof(optimizer.trained_pieces())
reports = []
for unused in (1, None, None):
    inputs = torch.ones(2, 7, dtype=torch.bfloat16)
    outputs = inputs
    for number, layer in enumerate(module):
        outputs = torch.nn.functional.linear(outputs, layer.weight, None if number == unused else layer.bias)
    outputs.float().square().mean().backward()
    optimizer.prepare()
    optimizer.commit([1e-9], 1.0)  # too small for bfloat16, so only the master weights change
    reports.append(proof.report(optimizer.trained_pieces()))
sizes = [piece.numel() for piece in optimizer.trained_pieces()]
print(json.dumps({"reports": reports, "sizes": sizes}))
"""


@pytest.mark.parametrize("stage", [1, 2])
def test_tensors_without_a_gradient_are_counted_as_unchanged_on_every_rank(tmp_path: Path, stage: int) -> None:
    first, second = answers_of_two_ranks(REPLICA, tmp_path / "group", str(stage))
    expected = [{"num_changed": 5, "num_trained": 6}, {"num_changed": 6, "num_trained": 6}, {}]
    assert first["reports"] == second["reports"] == expected
    sizes = [a + b for a, b in zip(first["sizes"], second["sizes"], strict=True)]
    assert sorted(sizes) == [7, 7, 7, 49, 49, 49], "each element is on one rank"


@pytest.fixture
def one_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dist, "all_reduce", lambda tensor, op: None)


@pytest.mark.usefixtures("one_rank")
def test_a_change_of_the_last_bit_of_one_element_is_found_wherever_it_is() -> None:
    size = (1 << 20) + 3  # more than one chunk
    for place in (0, (1 << 20) - 1, 1 << 20, size - 1):
        piece, other = torch.full((size,), 0.5), torch.zeros(5)
        proof = ChangeProof([piece, other])
        assert proof.report([piece, other]) == {"num_changed": 0, "num_trained": 2}
        piece.view(torch.int32)[place] ^= 1
        assert proof.report([piece, other]) == {"num_changed": 1, "num_trained": 2}
        assert proof.report([piece, other]) == {}, "two reports are enough"


@pytest.mark.usefixtures("one_rank")
def test_the_proof_leaves_the_global_generator_alone_and_ends_when_all_have_changed() -> None:
    before = torch.get_rng_state()
    pieces = [torch.zeros(4), torch.zeros(0), torch.ones(2)]
    proof = ChangeProof(pieces)
    assert proof.report([piece + 1 for piece in pieces]) == {"num_changed": 2, "num_trained": 3}
    assert torch.equal(torch.get_rng_state(), before)
    proof = ChangeProof(pieces[:1])
    assert proof.report([pieces[0] + 1]) == {"num_changed": 1, "num_trained": 1}
    assert proof.report([pieces[0] + 1]) == {}


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_pieces_are_the_parts_of_a_ranks_partition(monkeypatch: pytest.MonkeyPatch, rank: int) -> None:
    monkeypatch.setattr(dist, "get_rank", lambda: rank)
    whole = torch.arange(12, dtype=torch.float32)  # 10 elements in three partitions of four, two are padding
    optimizer = object.__new__(ShardedOptimizer)
    optimizer._zero = SimpleNamespace(
        single_partition_of_fp32_groups=[whole[4 * rank : 4 * rank + 4]],
        round_robin_bit16_groups=[[torch.empty(1, 3), torch.empty(6), torch.empty(1)]],
    )
    expected = [[[0, 1, 2], [3], []], [[], [4, 5, 6, 7], []], [[], [8], [9]]]
    assert [piece.tolist() for piece in optimizer.trained_pieces()] == expected[rank]
