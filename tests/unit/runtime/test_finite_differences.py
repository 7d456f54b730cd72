"""Gradients compared with finite differences."""

import pytest
import torch
from mora_environment.conformance.finite_differences import Tolerances, disagreement

TOLERANCES = Tolerances(1e-3, 1e-2)
AT = torch.linspace(-1.0, 1.0, 12, dtype=torch.float64)


def value(at: torch.Tensor) -> float:
    return float(at.sin().sum())


def test_a_right_gradient_agrees() -> None:
    error, told = disagreement(value, AT, AT.cos(), TOLERANCES, seed=0)
    assert told is None
    assert error <= 1e-3


@pytest.mark.parametrize(
    ("gradient", "said"),
    [
        (1.01 * AT.cos(), "along the gradient backward gives"),
        (-AT.cos(), "along the gradient"),
        (torch.zeros_like(AT), "backward gives 0, differences give"),
        (torch.where(AT > 0, AT.cos(), 0.0), "along the gradient"),
        (torch.where(AT > 0.9, 0.0, AT.cos()), "along "),
        (AT.cos().roll(1), "along"),
    ],
)
def test_a_wrong_gradient_disagrees(gradient: torch.Tensor, said: str) -> None:
    _, told = disagreement(value, AT, gradient, TOLERANCES, seed=0)
    assert told is not None
    assert said in told


def test_a_gradient_below_the_rounding_of_the_value_agrees() -> None:
    def constant(at: torch.Tensor) -> float:
        return 1.0 + 1e-8 * float(at[0])

    assert disagreement(constant, AT, torch.full_like(AT, 1e-11), TOLERANCES, seed=0)[1] is None
    assert disagreement(constant, AT, torch.zeros_like(AT), TOLERANCES, seed=0)[1] is None
    assert disagreement(constant, AT, torch.full_like(AT, 1e-4), TOLERANCES, seed=0)[1] is not None
