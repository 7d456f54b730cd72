"""Only rank 0 gets the moving average in whole, and the same bytes as from a gathering on every rank."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from mora_training.gathered_partitions import gather_on_first_rank
from two_ranks import answers_of_two_ranks

SHAPES = [[3, 5], [7], [], [2, 11, 4], [1]]  # 112 elements; partitions have 57, so two are padding

REPLICA = """
import json, sys, weakref
import torch
import torch.distributed as dist
from torch.utils import _pytree
from torch.utils._python_dispatch import TorchDispatchMode
from mora_training.process_group import join_group
from mora_training.sharded_optimizer import ShardedOptimizer
from mora_training.training_settings import GroupSettings, OptimizerSettings


class LiveBytes(TorchDispatchMode):
    '''Counts the bytes of the tensors that are made while it is active, and the most that were alive at once.'''

    def __init__(self):
        super().__init__()
        self.sizes, self.nbytes, self.peak_nbytes = {}, 0, 0

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        made = function(*arguments, **(options or {}))
        for tensor in _pytree.tree_leaves(made):
            if isinstance(tensor, torch.Tensor) and id(tensor.untyped_storage()) not in self.sizes:
                storage = tensor.untyped_storage()
                self.sizes[id(storage)] = storage.nbytes()
                self.nbytes += storage.nbytes()
                self.peak_nbytes = max(self.peak_nbytes, self.nbytes)
                weakref.finalize(storage, self._died, id(storage))
        return made

    def _died(self, number):
        self.nbytes -= self.sizes.pop(number)


rank, path = int(sys.argv[1]), sys.argv[2]
join_group(GroupSettings(rank=rank, world_size=2, rendezvous=f"file://{path}"), torch.device("cpu"))
torch.manual_seed(0)
module = torch.nn.Sequential(*[torch.nn.Linear(512, 512) for _ in range(3)]).to(torch.bfloat16)
parameters = list(module.parameters())
optimizer = ShardedOptimizer(module, [parameters[:2], parameters[2:]], OptimizerSettings(ema_decay=0.9))
for shadow in optimizer.ema.shadows:
    shadow.copy_(torch.randn(shadow.shape, generator=torch.Generator().manual_seed(rank)))

expected = {}  # every rank gathers everything
names = {id(parameter): name for name, parameter in module.named_parameters()}
for group, shadow in zip(optimizer._zero.round_robin_bit16_groups, optimizer.ema.shadows):
    parts = [torch.empty_like(shadow) for _ in range(2)]
    dist.all_gather(parts, shadow)
    for parameter, values in zip(group, torch.cat(parts).split([p.numel() for p in group] + [0])):
        expected[names[id(parameter)]] = values.view(parameter.shape)

shadows = {shadow.untyped_storage().data_ptr() for shadow in optimizer.ema.shadows}
with LiveBytes() as live:
    for shadow in optimizer.ema.shadows:  # count from zero: the shadows are there before
        live.sizes[id(shadow.untyped_storage())] = 0
    average = optimizer.gathered_ema()
told = {"peak_nbytes": live.peak_nbytes, "average_nbytes": sum(value.nbytes for value in expected.values())}
if average is not None:
    told["equal"] = {name: torch.equal(average[name], value) for name, value in expected.items()}
    told["names"] = sorted(average)
    told["own_memory"] = len({value.data_ptr() for value in average.values()}) == len(average)
print(json.dumps(told))
"""


def test_one_rank_gets_the_whole_average_and_the_other_allocates_nothing(tmp_path: Path) -> None:
    first, second = answers_of_two_ranks(REPLICA, tmp_path / "group")
    names = sorted(f"{number}.{kind}" for number in range(3) for kind in ("weight", "bias"))
    assert first["names"] == names
    assert first["equal"] == dict.fromkeys(first["equal"], True)
    assert sorted(first["equal"]) == names
    assert first["own_memory"]
    assert "names" not in second
    assert second["peak_nbytes"] == 0, "a rank that only sends must not allocate"
    # on rank 0: the result, and at most one piece of each rank, which is smaller than 64 MiB for this small model
    assert first["average_nbytes"] <= first["peak_nbytes"] <= 2 * first["average_nbytes"]


@pytest.fixture
def two_ranks(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """Partitions of two ranks; this process is rank 0 and gets the pieces of rank 1 from here."""
    whole = torch.arange(114, dtype=torch.float32)
    partitions = [whole[:57], whole[57:]]
    position = {"at": 0}

    def gather(piece: torch.Tensor, pieces: list[torch.Tensor], *, dst: int) -> None:
        start = position["at"]
        position["at"] = start + piece.numel()
        assert dst == 0
        for partition, target in zip(partitions, pieces, strict=True):
            target.copy_(partition[start : start + piece.numel()])

    monkeypatch.setattr(dist, "get_rank", lambda: 0)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(dist, "gather", gather)
    return partitions


@pytest.mark.parametrize("pieces_nbytes", [1, 8 * 5, 8 * 57, 1 << 20])
def test_pieces_of_any_size_give_the_same_tensors(two_ranks: list[torch.Tensor], pieces_nbytes: int) -> None:
    shapes = [torch.Size(shape) for shape in SHAPES]
    found = gather_on_first_rank(two_ranks[0], shapes, pieces_nbytes=pieces_nbytes)
    assert found is not None
    assert [tensor.shape for tensor in found] == shapes
    assert torch.equal(torch.cat([tensor.flatten() for tensor in found]), torch.arange(112, dtype=torch.float32))
