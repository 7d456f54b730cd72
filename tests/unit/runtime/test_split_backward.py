"""A backward in two parts gives bit-identical gradients, and computes those of the parameters second."""

import weakref
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.utils.checkpoint
from mora_runtime.autograd.repeated_backward import checkpointed_nodes
from mora_runtime.autograd.split_backward import CAN_SPLIT, SplitBackward
from torch import nn
from torch.utils import _pytree
from torch.utils._python_dispatch import TorchDispatchMode


class Blocks(nn.Module):
    """The graph of a diffusion transformer in small: a layer used twice, a convolution, and a conditioning
    computed only from parameters that every block uses, directly and through its own parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.condition = nn.Sequential(nn.Linear(4, 16), nn.SiLU(), nn.Linear(16, 32))
        self.table = nn.Parameter(torch.randn(32))
        self.blocks = nn.ModuleList(
            [nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 32), nn.LayerNorm(32)) for _ in range(3)]
        )
        self.tied = nn.Linear(32, 32)
        self.convolution = nn.Conv1d(8, 8, 3, padding=1)

    def forward(self, x: torch.Tensor, time: torch.Tensor) -> list[torch.Tensor]:
        condition = self.condition(time)
        shift = condition + self.table
        for block in self.blocks:
            x = x + self.tied(block(x) * (1 + shift)) + condition
            x = self.convolution(x)
        return [x.square().mean() + condition.square().mean(), x.sum(-1), shift.sum()]


@pytest.fixture
def module() -> Blocks:
    torch.manual_seed(0)
    return Blocks()


def inputs(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(seed)
    return torch.randn(2, 8, 32, requires_grad=True), torch.randn(2, 1, 4)


def parameter_gradients(module: nn.Module) -> dict[str, torch.Tensor | None]:
    found = {name: None if p.grad is None else p.grad.clone() for name, p in module.named_parameters()}
    module.zero_grad()
    return found


def test_every_gradient_is_the_same_to_the_bit_over_several_backwards(module: Blocks) -> None:
    gradients = [torch.tensor(0.5), torch.randn(2, 8), torch.tensor(2.0)]
    of_inputs: list[list[torch.Tensor]] = [[], []]
    for seed in range(3):
        x, time = inputs(seed)
        torch.autograd.backward(module(x, time), gradients)
        assert x.grad is not None
        of_inputs[0].append(x.grad)
    expected = parameter_gradients(module)
    for seed in range(3):
        x, time = inputs(seed)
        split = SplitBackward(module(x, time), gradients, {"x": x})
        of_inputs[1].append(split.input_gradients()["x"])
        split.accumulate_parameters()
    found = parameter_gradients(module)
    assert all(torch.equal(*pair) for pair in zip(*of_inputs, strict=True))
    for name, gradient in expected.items():
        other = found[name]
        assert gradient is not None
        assert other is not None
        assert torch.equal(gradient, other), name


@pytest.mark.skipif(not CAN_SPLIT, reason="before torch 2.5 the first part is the whole backward")
def test_parameters_get_gradients_only_in_the_second_part_and_their_hooks_run_once(module: Blocks) -> None:
    seen: list[nn.Parameter] = []
    for parameter in module.parameters():
        parameter.register_post_accumulate_grad_hook(seen.append)
    x, time = inputs(0)
    split = SplitBackward(module(x, time)[:1], [torch.tensor(1.0)], {"x": x})
    split.input_gradients()
    assert all(parameter.grad is None for parameter in module.parameters())
    split.accumulate_parameters()
    assert len(seen) == len(list(module.parameters()))


@pytest.mark.parametrize(
    "make",
    [
        lambda weight, x: (weight * 2).sum(),  # no input behind it
        lambda weight, x: (x * 2).sum(),  # no parameter behind it
        lambda weight, x: (x * weight).sum() + weight.sum(),
    ],
)
def test_graphs_without_inputs_or_without_parameters(
    make: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
) -> None:
    weight, x = nn.Parameter(torch.tensor([1.0, 2.0])), torch.tensor([3.0, 4.0], requires_grad=True)
    make(weight, x).backward()
    expected = x.grad, weight.grad
    x.grad = weight.grad = None
    split = SplitBackward([make(weight, x)], [torch.tensor(1.0)], {"x": x})
    found = split.input_gradients().get("x")
    split.accumulate_parameters()
    for one, other in zip(expected, (found, weight.grad), strict=True):
        assert (one is None) == (other is None)
        assert one is None or other is None or torch.equal(one, other)


def test_checkpointed_blocks_are_split_too(module: Blocks) -> None:
    def run(x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        again = torch.utils.checkpoint.checkpoint(lambda value: module(value, time)[0], x, use_reentrant=False)
        assert isinstance(again, torch.Tensor)
        return again

    x, time = inputs(0)
    run(x, time).backward()
    expected, of_input = parameter_gradients(module), x.grad
    x, time = inputs(0)
    split = SplitBackward([run(x, time)], [torch.tensor(1.0)], {"x": x})
    found = split.input_gradients()["x"]
    split.accumulate_parameters()
    assert of_input is not None
    assert torch.equal(found, of_input)
    for name, gradient in parameter_gradients(module).items():
        other = expected[name]
        assert (gradient is None) == (other is None)
        assert gradient is None or other is None or torch.equal(gradient, other), name


class Checkpointed(nn.Module):
    """Blocks with gradient checkpointing, some of whose layers depend on parameters alone, as in a diffusion
    transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.condition = nn.Linear(4, 32)
        self.blocks = nn.ModuleList([Block() for _ in range(4)])
        self.last = nn.Linear(32, 32)

    def forward(self, x: torch.Tensor, *, recompute: bool = True) -> torch.Tensor:
        condition = self.condition(torch.ones(1, 1, 4))
        for block in self.blocks:
            x = block(x, condition) if not recompute else checkpoint(block, x, condition, use_reentrant=False)
        return self.last(x).square().mean() + condition.sum()


class Block(nn.Module):
    num_forwards = 0  # of all blocks

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.modulation = nn.LayerNorm(32), nn.Linear(32, 32)
        self.query, self.up, self.down = nn.Linear(32, 32), nn.Linear(32, 128), nn.Linear(128, 32)

    def forward(self, x: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        Block.num_forwards += 1
        query = self.query(self.norm(x) * (1 + self.modulation(condition)))
        x = x + nn.functional.scaled_dot_product_attention(query, query, query)
        return x + self.down(nn.functional.gelu(self.up(x)))


checkpoint: Callable[..., torch.Tensor] = torch.utils.checkpoint.checkpoint

FINDS_BLOCKS = hasattr(torch._C._autograd.SavedTensor, "data")
needs_blocks = pytest.mark.skipif(not FINDS_BLOCKS, reason="this version of torch does not tell what a node saved")


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of tensors that were made while it is active, and the most that were alive at once."""

    def __init__(self) -> None:
        super().__init__()
        self._sizes: dict[int, int] = {}
        self.nbytes = self.peak_nbytes = 0

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        made = function(*arguments, **(options or {}))
        for tensor in _pytree.tree_leaves(made):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor.untyped_storage())
        return made

    def _count(self, storage: torch.UntypedStorage) -> None:
        if id(storage) not in self._sizes:
            self._sizes[id(storage)] = storage.nbytes()
            self.nbytes += storage.nbytes()
            self.peak_nbytes = max(self.peak_nbytes, self.nbytes)
            weakref.finalize(storage, self._died, id(storage))

    def _died(self, number: int) -> None:
        self.nbytes -= self._sizes.pop(number)


@pytest.fixture
def checkpointed() -> Checkpointed:
    torch.manual_seed(0)
    return Checkpointed()


def long_input() -> torch.Tensor:
    return torch.randn(1, 512, 32, generator=torch.Generator().manual_seed(1)).requires_grad_()


@needs_blocks
def test_each_checkpointed_block_is_computed_again_once_in_each_part(checkpointed: Checkpointed) -> None:
    x = long_input()
    checkpointed(x).backward()
    expected, of_input = parameter_gradients(checkpointed), x.grad
    seen: list[nn.Parameter] = []
    for parameter in checkpointed.parameters():
        parameter.register_post_accumulate_grad_hook(seen.append)
    x = long_input()
    split = SplitBackward([checkpointed(x)], [torch.tensor(1.0)], {"x": x})
    counts = [Block.num_forwards]
    found = split.input_gradients()["x"]
    counts.append(Block.num_forwards)
    assert not seen
    split.accumulate_parameters()
    counts.append(Block.num_forwards)
    assert [later - before for before, later in pairwise(counts)] == [4, 4]
    assert of_input is not None
    assert torch.equal(found, of_input)
    assert x.grad is None
    assert len(seen) == len(expected)
    for name, gradient in parameter_gradients(checkpointed).items():
        other = expected[name]
        assert gradient is not None
        assert other is not None
        assert torch.equal(gradient, other), name


@needs_blocks
def test_the_two_parts_need_no_more_memory_than_one_backward_over_checkpointed_blocks(
    checkpointed: Checkpointed,
) -> None:
    checkpointed(long_input()).backward()  # so that all gradients exist
    hidden_nbytes = 512 * 32 * 4  # a block saves more than ten of these
    slack_nbytes = 4 * hidden_nbytes
    x = long_input()
    with LiveBytes() as whole:
        loss = checkpointed(x)
        kept_nbytes = whole.nbytes
        torch.autograd.backward(loss)
    with LiveBytes() as first:
        split = SplitBackward([checkpointed(x)], [torch.tensor(1.0)], {"x": x})
        split.input_gradients()
    assert first.peak_nbytes <= whole.peak_nbytes + slack_nbytes
    assert first.nbytes <= kept_nbytes + slack_nbytes, "recomputed tensors must not stay"
    with LiveBytes() as second:
        split.accumulate_parameters()
    assert second.peak_nbytes <= whole.peak_nbytes + slack_nbytes


@needs_blocks
def test_only_checkpointed_blocks_are_recognised(checkpointed: Checkpointed) -> None:
    assert not checkpointed_nodes(_nodes(checkpointed(long_input(), recompute=False)))
    assert checkpointed_nodes(_nodes(checkpointed(long_input())))


def _nodes(loss: torch.Tensor) -> list[torch.autograd.graph.Node]:
    assert loss.grad_fn is not None
    seen = [loss.grad_fn]
    for node in seen:
        seen += [child for child, _ in node.next_functions if child is not None and child not in seen]
    return seen


def test_checkpointed_blocks_without_parameters_give_the_gradients_of_the_inputs() -> None:
    x = long_input()
    again = torch.utils.checkpoint.checkpoint(lambda value: value.sin().square(), x, use_reentrant=False)
    assert isinstance(again, torch.Tensor)
    split = SplitBackward([again.sum()], [torch.tensor(1.0)], {"x": x})
    found = split.input_gradients()["x"]
    split.accumulate_parameters()
    assert torch.equal(found, torch.autograd.grad(x.sin().square().sum(), x)[0])
