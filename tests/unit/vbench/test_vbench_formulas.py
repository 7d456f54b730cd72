"""Formulas on small numbers that can be checked by hand."""

from __future__ import annotations

import math

import pytest
import torch
from mora_env_vbench.arguments import finite
from mora_env_vbench.formulas.aesthetic import aesthetic_scores
from mora_env_vbench.formulas.consistency import consistency
from mora_env_vbench.formulas.dynamic import flow_values, movement_threshold, moves, needed_pairs
from mora_env_vbench.formulas.flickering import mean_differences, steadiness
from mora_env_vbench.formulas.smoothness import made_differences, smoothness, to_bytes
from mora_runtime.errors import BadArgument


def test_consistency_is_the_mean_of_the_cosines_with_the_frame_before_and_the_first() -> None:
    turns = torch.tensor([0.0, 60.0, 120.0]) * math.pi / 180
    features = torch.stack([turns.cos(), turns.sin()], dim=1) * torch.tensor([[1.0], [5.0], [0.1]])
    found = consistency(features)
    # frame 1: (0.5 + 0.5) / 2. Frame 2: (0.5 + max(0, -0.5)) / 2.
    assert found["pairs"].tolist() == pytest.approx([0.5, 0.25], abs=1e-6)
    assert found["score"] == pytest.approx(0.375, abs=1e-6)
    assert found["weight"] == 2.0


def test_consistency_is_1_without_change() -> None:
    assert consistency(torch.ones(4, 7))["score"] == pytest.approx(1.0, abs=1e-6)


def test_the_aesthetic_score_does_not_depend_on_the_length_of_a_feature() -> None:
    weight, bias = torch.tensor([[3.0, 4.0]]), torch.tensor([5.0])
    scores = aesthetic_scores(torch.tensor([[1.0, 0.0], [100.0, 0.0], [0.0, -2.0]]), weight, bias)
    assert scores.tolist() == pytest.approx([0.8, 0.8, 0.1])


def test_the_flow_value_is_the_mean_of_the_longest_twentieth() -> None:
    flow = torch.zeros(2, 2, 10, 10)
    flow[0, :, 0, :5] = torch.tensor([3.0, 4.0]).view(2, 1)
    flow[0, 0, 5, 5] = 1.0
    flow[1, 1, 0, 0] = -10.0
    assert flow_values(flow).tolist() == pytest.approx([5.0, 2.0])


def test_the_threshold_follows_the_shorter_side_and_the_count_the_number_of_frames() -> None:
    assert movement_threshold(720, 1280) == 16.875
    assert [needed_pairs(number) for number in (2, 3, 6, 16, 49)] == [0, 1, 2, 4, 12]


def test_a_video_moves_when_enough_pairs_are_above_the_threshold() -> None:
    assert moves([7.0, 3.0, 7.0], threshold=6.0, needed=2)
    assert not moves([7.0, 3.0, 6.0], threshold=6.0, needed=2)
    assert moves([0.0], threshold=6.0, needed=0)
    assert not moves([], threshold=6.0, needed=0)


def test_smoothness_compares_the_odd_frames_with_the_made_ones() -> None:
    frames = torch.tensor([0, 10, 20, 30, 40, 50], dtype=torch.uint8).view(6, 1, 1, 1).expand(6, 2, 2, 3)
    made = torch.tensor([13, 29], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 2, 2, 3)
    differences = made_differences(frames, made)
    assert differences.tolist() == [3.0, 1.0]
    assert smoothness(differences) == (255 - 2) / 255


def test_bytes_are_cut_off_and_not_rounded() -> None:
    x = torch.tensor([-0.1, 0.999 / 255, 1.5 / 255, 0.9999, 1.2]).view(1, 1, 1, 5).expand(1, 3, 1, 5)
    assert to_bytes(x)[0, 0, :, 0].tolist() == [0, 0, 1, 254, 255]


def test_flickering_does_not_wrap_around_at_0() -> None:
    frames = torch.tensor([0, 255, 0], dtype=torch.uint8).view(3, 1, 1, 1).expand(3, 2, 2, 3)
    differences = mean_differences(frames[:-1], frames[1:])
    assert differences.tolist() == [255.0, 255.0]
    assert steadiness(differences) == 0.0


@pytest.mark.parametrize("value", [float("nan"), float("inf"), torch.tensor([1.0, float("nan")])])
def test_numbers_that_are_not_finite_are_refused(value: object) -> None:
    with pytest.raises(BadArgument, match=r"some_dimension: expected finite numbers, but `detail`"):
        finite("some_dimension", {"score": 0.5, "detail": value})
