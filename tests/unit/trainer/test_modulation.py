"""Modulation factors and clipping, as the paper and its readings define them."""

import math

import pytest
import torch
from mora_trainer.modulation import Modulation, modulation_factors, random_rows
from mora_trainer.settings import TrainingSettings, check_batch
from mora_trainer.step import clip_factor

Z = {"image": torch.full((4, 4), 1.5), "video": torch.full((1, 4), 1.0)}  # norms 6 and 2


def test_alpha_is_the_norm_over_the_number_of_agents() -> None:
    assert modulation_factors(Z, "norm") == pytest.approx({"image": 3.0, "video": 1.0})


def test_alpha_in_the_share_reading_has_mean_one() -> None:
    assert modulation_factors(Z, "share") == pytest.approx({"image": 1.5, "video": 0.5})


def test_alpha_in_the_reading_one_is_one_for_every_agent() -> None:
    assert modulation_factors(Z, "one") == {"image": 1.0, "video": 1.0}


def test_the_random_ablation_has_one_row_of_the_agents_width_and_repeats() -> None:
    rows = random_rows(torch.zeros(5, 7), seed=3)
    assert rows.shape == (1, 7)
    assert rows.dtype == torch.float32
    assert torch.equal(rows, random_rows(torch.zeros(2, 7), seed=3))
    assert not torch.equal(rows, random_rows(torch.zeros(2, 7), seed=4))


@pytest.mark.usefixtures("group")
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
def test_z_moves_at_the_papers_rate_even_if_its_agent_is_bfloat16() -> None:
    """At a rate of 1e-5 a bfloat16 z of about 1 never changes, because its next smaller value is 0.004 away."""
    rate = 1e-5
    started = torch.ones(4, 8, dtype=torch.bfloat16)
    assert torch.equal(started - rate, started), "the step is lost in the agents' dtype"
    modulation = Modulation({"image": started, "video": started[:1]}, "norm", "adamw")
    for _ in range(3):
        modulation.accumulate({"image": torch.ones(4, 8), "video": torch.ones(1, 8)})
        assert modulation.prepare().finite
        modulation.commit({"image": rate, "video": rate}, 1.0)
    for name in ("image", "video"):
        moved = 1.0 - modulation.embedding(name).double()
        assert modulation.embedding(name).dtype == torch.float32
        assert moved.numpy() == pytest.approx(3 * rate, rel=0.02), "AdamW moves by the rate a step"
    assert modulation.factors()["image"] == pytest.approx((1.0 - 3 * rate) * 32**0.5 / 2, rel=1e-6)


def test_clipping_equals_torchs_over_all_roles_together() -> None:
    gradients = [torch.randn(5, generator=torch.Generator().manual_seed(i)).requires_grad_() for i in range(3)]
    for parameter in gradients:
        parameter.grad = parameter.detach().clone()
    total = math.sqrt(sum(float(p.detach().square().sum()) for p in gradients))
    torch.nn.utils.clip_grad_norm_(gradients, 0.5)
    factor = clip_factor(total, 0.5)
    for parameter in gradients:
        assert parameter.grad is not None
        assert torch.allclose(parameter.grad, parameter.detach() * factor)
    assert clip_factor(0.1, 0.5) == 1.0
    assert clip_factor(1e9, None) == 1.0


def test_a_batch_that_cannot_be_shared_equally_is_refused() -> None:
    check_batch(TrainingSettings(batch_size=8, micro_batch_size=2), num_replicas=4)
    with pytest.raises(ValueError, match="set batch_size to a multiple of 6"):
        check_batch(TrainingSettings(batch_size=8, micro_batch_size=2), num_replicas=3)
