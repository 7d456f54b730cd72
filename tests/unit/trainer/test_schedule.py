"""Learning-rate factors."""

import pytest
from mora_trainer.schedule import schedule_factor


def factors(kind: str, num_warmup_steps: int) -> list[float]:
    return [
        schedule_factor(step, kind=kind, num_steps=10, num_warmup_steps=num_warmup_steps)  # type: ignore[arg-type]
        for step in range(11)
    ]


def test_constant_without_warmup_is_one_everywhere() -> None:
    assert factors("constant", 0) == [1.0] * 11


def test_warmup_climbs_linearly_to_one() -> None:
    assert factors("constant", 4)[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]


def test_cosine_falls_from_one_to_zero() -> None:
    found = factors("cosine", 0)
    assert found[0] == 1.0
    assert found[5] == pytest.approx(0.5)
    assert found[10] == pytest.approx(0.0)
    assert found == sorted(found, reverse=True)
