"""Windows of the correlation around a flow are bilinear samples, and 0 outside of the other picture."""

from __future__ import annotations

import math

import pytest
import torch
from mora_env_vbench.correlation import CorrelationPyramid, all_pairs, cell_coordinates
from torch import Tensor
from torch.nn import functional

NUM_LEVELS, RADIUS = 4, 3


def sampled(volume: Tensor, centres: Tensor) -> Tensor:
    """The same windows by torch's sampling of pictures, as the published code computes them."""
    steps = torch.arange(-RADIUS, RADIUS + 1.0)
    offsets = torch.stack(torch.meshgrid(steps, steps, indexing="ij"), dim=-1)
    level, found = volume.flatten(0, 2)[:, None], []
    for number in range(NUM_LEVELS):
        points = centres.permute(0, 2, 3, 1).reshape(-1, 1, 1, 2) / 2**number + offsets
        span = torch.tensor([level.shape[3] - 1, level.shape[2] - 1])
        window = functional.grid_sample(level, 2 * points / span - 1, align_corners=True)
        found.append(window.view(*volume.shape[:3], -1))
        level = functional.avg_pool2d(level, 2)
    return torch.cat(found, dim=-1).permute(0, 3, 1, 2)


@pytest.fixture
def volume() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return all_pairs(*torch.randn(2, 2, 8, 16, 18, generator=generator))


def test_windows_are_bilinear_samples_inside_and_outside(volume: Tensor) -> None:
    generator = torch.Generator().manual_seed(2)
    centres = cell_coordinates(torch.zeros(2, 1, 16, 18)) + 6 * torch.randn(2, 2, 16, 18, generator=generator)
    windows = CorrelationPyramid(volume, NUM_LEVELS, RADIUS).windows(centres)
    assert windows.shape == (2, NUM_LEVELS * (2 * RADIUS + 1) ** 2, 16, 18)
    torch.testing.assert_close(windows, sampled(volume, centres), atol=1e-4, rtol=1e-4)


def test_windows_far_outside_are_zero(volume: Tensor) -> None:
    pyramid = CorrelationPyramid(volume, NUM_LEVELS, RADIUS)
    for value in (-1e30, -1e3, 1e3, 1e30):
        assert not pyramid.windows(torch.full((2, 2, 16, 18), value)).any()


def test_a_centre_that_is_not_a_number_gives_no_number(volume: Tensor) -> None:
    centres = cell_coordinates(torch.zeros(2, 1, 16, 18)).clone()
    centres[0, 0, 3, 4] = math.nan
    windows = CorrelationPyramid(volume, NUM_LEVELS, RADIUS).windows(centres)
    is_lost = windows.isnan().any(dim=1)
    assert is_lost[0, 3, 4]
    assert is_lost.sum() == 1


def test_the_correlation_is_the_scaled_product_of_all_cells() -> None:
    first, second = torch.randn(2, 1, 5, 3, 4, generator=torch.Generator().manual_seed(3))
    volume = all_pairs(first, second)
    expected = (first[0, :, 2, 1] * second[0, :, 0, 3]).sum() / math.sqrt(5)
    torch.testing.assert_close(volume[0, 2, 1, 0, 3], expected)
