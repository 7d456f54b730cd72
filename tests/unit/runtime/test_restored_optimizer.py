"""Optimizer state from a file is moved to the device of the weights. The tests use the meta device as the GPU."""

from types import SimpleNamespace

import torch
from mora_training.sharded_optimizer import ShardedOptimizer


def optimizer_of(master: torch.Tensor) -> ShardedOptimizer:
    """An optimizer of one group without DeepSpeed's engine."""
    optimizer = object.__new__(ShardedOptimizer)
    optimizer._zero = SimpleNamespace(
        single_partition_of_fp32_groups=[master],
        optimizer=SimpleNamespace(state={}),
        update_lp_params=lambda: None,
    )
    optimizer.ema = None
    return optimizer


def saved_state() -> dict[str, torch.Tensor]:
    return {
        "0.master": torch.ones(8),
        "0.step": torch.tensor(3.0),
        "0.exp_avg": torch.full((8,), 2.0),
        "0.exp_avg_sq": torch.full((8,), 4.0),
        "ema_updates": torch.tensor(0),
    }


def test_moments_go_to_the_device_of_the_weights_and_the_step_count_stays_on_the_cpu() -> None:
    master = torch.zeros(8, device="meta")
    optimizer = optimizer_of(master)
    optimizer.load_state(saved_state())
    devices = {name: value.device.type for name, value in optimizer._zero.optimizer.state[master].items()}
    assert devices == {"step": "cpu", "exp_avg": "meta", "exp_avg_sq": "meta"}


def test_restored_state_is_a_copy_of_what_was_read() -> None:
    master = torch.zeros(8)
    optimizer, saved = optimizer_of(master), saved_state()
    optimizer.load_state(saved)
    restored = optimizer._zero.optimizer.state[master]
    for name, value in restored.items():
        assert torch.equal(value, saved[f"0.{name}"])
        assert value.data_ptr() != saved[f"0.{name}"].data_ptr()


def test_moments_that_are_there_keep_their_memory_because_deepspeed_has_views_of_it() -> None:
    master = torch.zeros(8)
    optimizer, saved = optimizer_of(master), saved_state()
    optimizer.load_state(saved)
    known = {name: value.data_ptr() for name, value in optimizer._zero.optimizer.state[master].items()}
    saved["0.exp_avg"] = torch.full((8,), 5.0)
    saved["0.step"] = torch.tensor(7.0)
    optimizer.load_state(saved)
    restored = optimizer._zero.optimizer.state[master]
    assert {name: value.data_ptr() for name, value in restored.items()} == known
    assert all(torch.equal(value, saved[f"0.{name}"]) for name, value in restored.items())


def test_a_checkpoint_from_before_the_first_step_removes_the_moments() -> None:
    master = torch.zeros(8)
    optimizer, saved = optimizer_of(master), saved_state()
    optimizer.load_state(saved)
    optimizer._zero._hp_optimizer_states_linked = True
    optimizer.load_state({"0.master": torch.ones(8), "ema_updates": torch.tensor(0)})
    assert master not in optimizer._zero.optimizer.state
    assert not optimizer._zero._hp_optimizer_states_linked, "DeepSpeed must look for the moments of the next step"
