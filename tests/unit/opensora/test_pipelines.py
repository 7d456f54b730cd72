"""Sampling around given frames: every scheduler works, and the modulation rows reach both halves of guidance."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mora_env_opensora.conditioning import ClipSize
from mora_env_opensora.models import CausalVAEModel, InputError, OpenSoraInpaint
from mora_env_opensora.pipelines import GivenFramesPipeline, SamplingSettings
from mora_env_opensora.pipelines.pixels import frames_to_pixels
from mora_env_opensora.pipelines.schedulers import make_scheduler

SIZE = ClipSize(9, 32, 32)


def _pipeline(tiny: Path, settings: SamplingSettings) -> GivenFramesPipeline:
    model = OpenSoraInpaint.from_pretrained(tiny / "transformer_i2v")
    return GivenFramesPipeline(model, CausalVAEModel.from_pretrained(tiny / "vae"), SIZE, settings)


@pytest.fixture(scope="module")
def given(tiny: Path) -> GivenFramesPipeline:
    return _pipeline(tiny, SamplingSettings("pndm", 4, 3.0))


ROWS = torch.randn(4, 32, generator=torch.Generator().manual_seed(5))
NEGATIVE = torch.randn(6, 32, generator=torch.Generator().manual_seed(6))


FIRST = frames_to_pixels(
    torch.randint(0, 256, (1, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(7)), 32, 32
)


def test_the_seed_alone_decides_the_clip(given: GivenFramesPipeline) -> None:
    clip = given.sample(ROWS, NEGATIVE, [FIRST], [0], 2)
    torch.manual_seed(99)
    assert torch.equal(given.sample(ROWS, NEGATIVE, [FIRST], [0], 2), clip)
    assert clip.dtype == torch.uint8
    assert not torch.equal(given.sample(ROWS, NEGATIVE, [FIRST], [0], 3), clip)


@pytest.mark.parametrize("scheduler", ["pndm", "euler_ancestral", "euler", "ddim", "ddpm", "dpm_solver"])
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_every_scheduler_samples_around_given_frames(tiny: Path, scheduler: str, guidance: float) -> None:
    frames = _pipeline(tiny, SamplingSettings(scheduler, 4, guidance)).sample(ROWS, NEGATIVE, [FIRST], [0], 0)
    assert frames.shape == (9, 32, 32, 3)
    assert frames.float().std() > 0


def test_modulation_rows_change_the_clip_in_both_halves_of_guidance(given: GivenFramesPipeline) -> None:
    z = torch.randn(2, 32)
    modulated = given.sample(ROWS, NEGATIVE, [FIRST], [0], 0, z=z)
    assert not torch.equal(given.sample(ROWS, NEGATIVE, [FIRST], [0], 0), modulated)
    by_hand = given.sample(torch.cat([ROWS, z]), torch.cat([NEGATIVE, z]), [FIRST], [0], 0)
    assert (by_hand.int() - modulated.int()).abs().max() <= 1


def test_bad_settings_and_frames_are_named() -> None:
    with pytest.raises(InputError, match="frames: expected uint8"):
        frames_to_pixels(torch.zeros(1, 32, 32, 3), 32, 32)
    with pytest.raises(InputError, match="scheduler: expected one of pndm"):
        make_scheduler("unipc")
    for scheduler, steps in (("ddim", 0), ("pndm", 3)):
        with pytest.raises(InputError, match=f"num_inference_steps: expected at least {steps + 1} with {scheduler}"):
            SamplingSettings(scheduler, steps)
