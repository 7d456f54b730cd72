"""The exponential moving average follows the formula, in float32, only on this rank's partition."""

import pytest
import torch
from mora_training.ema import ShardedEma, ema_decay


@pytest.mark.parametrize(
    ("num_updates", "decay"), [(1, 0.0), (2, 2 / 11), (3, 3 / 12), (11, 11 / 20), (10**6, 0.9999), (10**9, 0.9999)]
)
def test_the_decay_warms_up_to_its_maximum(num_updates: int, decay: float) -> None:
    assert ema_decay(num_updates, 0.9999) == pytest.approx(decay, abs=0)


def test_the_decay_never_falls() -> None:
    decays = [ema_decay(number, 0.99) for number in range(1, 2000)]
    assert decays == sorted(decays)
    assert decays[-1] == 0.99


def test_the_first_update_copies_and_later_ones_follow() -> None:
    parameter = torch.zeros(3)
    ema = ShardedEma([parameter], 0.9999)
    parameter.fill_(1.0)
    ema.update()
    assert torch.equal(ema.shadows[0], torch.ones(3))
    parameter.fill_(12.0)
    ema.update()
    assert ema.shadows[0].tolist() == pytest.approx([1.0 * 2 / 11 + 12.0 * 9 / 11] * 3, rel=1e-6)
    assert ema.num_updates == 2


def test_the_shadow_is_a_copy_and_the_parameter_is_never_changed() -> None:
    parameter = torch.arange(4.0, requires_grad=True)
    ema = ShardedEma([parameter], 0.5)
    assert not ema.shadows[0].requires_grad
    ema.update()
    ema.shadows[0].zero_()
    assert parameter.tolist() == [0.0, 1.0, 2.0, 3.0]


def test_an_empty_partition_on_this_rank_is_allowed() -> None:
    ema = ShardedEma([torch.empty(0), torch.ones(2)], 0.9)
    ema.update()
    assert [shadow.numel() for shadow in ema.shadows] == [0, 2]
