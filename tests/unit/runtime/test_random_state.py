"""A restored generator repeats its numbers, also through a checkpoint's tensors."""

import torch
from mora_runtime.autograd.random_state import RandomState

CPU = torch.device("cpu")


def test_restoring_draws_the_same_numbers_again() -> None:
    before = RandomState.now(CPU)
    drawn = torch.rand(5)
    torch.rand(100)
    before.restore()
    assert torch.equal(torch.rand(5), drawn)


def test_a_checkpoints_tensors_contain_the_whole_state_of_the_generator() -> None:
    tensors = {**RandomState.now(CPU).tensors(), "step": torch.ones(())}
    drawn = torch.rand(5)
    RandomState.taken_from(tensors, CPU).restore()
    assert torch.equal(torch.rand(5), drawn)
    assert tensors.keys() == {"step"}


def test_a_checkpoint_of_a_gpu_can_be_continued_on_the_cpu() -> None:
    tensors = {**RandomState.now(CPU).tensors(), "cuda_rng": torch.zeros(16, dtype=torch.uint8)}
    drawn = torch.rand(5)
    RandomState.taken_from(tensors, CPU).restore()
    assert torch.equal(torch.rand(5), drawn)
