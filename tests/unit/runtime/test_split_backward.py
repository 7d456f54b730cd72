"""A backward in two parts gives bit-identical gradients, and computes those of the parameters second."""

from collections.abc import Callable

import pytest
import torch
import torch.utils.checkpoint
from mora_runtime.autograd.split_backward import CAN_SPLIT, SplitBackward
from torch import nn


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
