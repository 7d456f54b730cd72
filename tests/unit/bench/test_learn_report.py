"""Means, intervals and differences of the comparison of trainings."""

from __future__ import annotations

from pathlib import Path

import pytest
from mora_data.dataset import read_dataset
from mora_data.settings import ClipShape

from benchmarks.learn.data import HELD_OUT, TRAINED, write_dataset
from benchmarks.learn.report import figures, interval, table


def test_the_interval_is_that_of_students_t_over_the_seeds() -> None:
    found = interval([1.0, 2.0, 3.0, 4.0, 5.0])
    assert found["mean"] == 3.0
    assert found["high"] == pytest.approx(3.0 + 2.776 * 2.5**0.5 / 5**0.5, abs=1e-4)
    assert found["low"] == pytest.approx(6.0 - found["high"], abs=1e-4)


def test_variants_are_compared_with_learned_seed_by_seed() -> None:
    pairs = {
        "learned": [({"loss": 1.0}, {"loss": 0.5}), ({"loss": 1.0}, {"loss": 0.7})],
        "none": [({"loss": 1.0}, {"loss": 0.6}), ({"loss": 1.0}, {"loss": 0.8})],
    }
    compared = figures(pairs)
    assert compared["none"]["loss"]["against_learned"]["mean"] == pytest.approx(0.1)
    assert compared["learned"]["loss"]["change"]["mean"] == pytest.approx(-0.4)
    assert compared["learned"]["loss"]["against_learned"]["values"] == [0.0, 0.0]
    assert len(table(compared)) == 2


def test_no_training_clip_shows_a_held_out_combination(tmp_path: Path) -> None:
    samples = read_dataset(write_dataset(tmp_path, ClipShape(num_frames=5, height=32, width=32)))
    trained, held_out = samples[: len(TRAINED)], samples[len(TRAINED) :]
    assert len(held_out) == len(HELD_OUT) == 16
    assert not {sample.prompt for sample in trained} & {sample.prompt for sample in held_out}
