"""Sampling: a seed gives the same clip whatever is asked for beside it; given frames and sizes are respected."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mora_env_opensora.conditioning import ClipSize
from mora_env_opensora.models import CausalVAEModel, InputError, OpenSoraInpaint, OpenSoraT2V
from mora_env_opensora.pipelines import GivenFramesPipeline, SamplingSettings, TextToVideoPipeline
from mora_env_opensora.pipelines.schedulers import make_scheduler
from mora_env_opensora.text.encoder import TextEncoder

SIZE = ClipSize(9, 32, 32)


@pytest.fixture(scope="module")
def given(tiny: Path) -> GivenFramesPipeline:
    return GivenFramesPipeline(
        OpenSoraInpaint.from_pretrained(tiny / "transformer_i2v"),
        CausalVAEModel.from_pretrained(tiny / "vae"),
        SIZE,
        SamplingSettings("pndm", 4, 3.0),
        TextEncoder(tiny / "text_encoder"),
    )


@pytest.fixture(scope="module")
def text_to_video(tiny: Path) -> TextToVideoPipeline:
    return TextToVideoPipeline(
        OpenSoraT2V.from_pretrained(tiny / "transformer_t2v"),
        CausalVAEModel.from_pretrained(tiny / "vae"),
        SIZE,
        SamplingSettings("euler_ancestral", 2, 3.0),
        TextEncoder(tiny / "text_encoder"),
    )


def _clip(frames: int, height: int = 32, width: int = 32, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (frames, height, width, 3), dtype=torch.uint8, generator=generator)


ROWS = torch.randn(4, 32, generator=torch.Generator().manual_seed(5))
NEGATIVE = torch.randn(6, 32, generator=torch.Generator().manual_seed(6))


def test_seed_gives_the_same_clip_whatever_the_batch(text_to_video: TextToVideoPipeline) -> None:
    together = text_to_video(["a cat", "a dog"], [1, 2])
    torch.manual_seed(99)
    assert torch.equal(text_to_video(["a dog"], [2])[0], together[1])
    assert together[0].shape == (9, 32, 32, 3)
    assert together[0].dtype == torch.uint8
    assert not torch.equal(together[1], text_to_video(["a dog"], [3])[0])


def test_image_to_video_batches_alike(given: GivenFramesPipeline) -> None:
    images = list(_clip(2))
    together = given(["a cat", "a dog"], images, [1, 2])
    assert torch.equal(given(["a dog"], images[1:], [2])[0], together[1])


@pytest.mark.parametrize("scheduler", ["pndm", "euler_ancestral", "euler", "ddim", "ddpm", "dpm_solver"])
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_every_scheduler_samples_around_given_frames(tiny: Path, scheduler: str, guidance: float) -> None:
    pipeline = GivenFramesPipeline(
        OpenSoraInpaint.from_pretrained(tiny / "transformer_i2v"),
        CausalVAEModel.from_pretrained(tiny / "vae"),
        SIZE,
        SamplingSettings(scheduler, 4, guidance),
    )
    frames = pipeline.animate(ROWS, NEGATIVE, _clip(1), 0)
    assert frames.shape == (9, 32, 32, 3)
    assert frames.float().std() > 0


def test_modulation_rows_change_the_clip_in_both_halves_of_guidance(given: GivenFramesPipeline) -> None:
    plain = given.animate(ROWS, NEGATIVE, _clip(1), 0)
    modulated = given.animate(ROWS, NEGATIVE, _clip(1), 0, z=torch.randn(2, 32))
    assert not torch.equal(plain, modulated)
    z = torch.randn(2, 32)
    by_hand = given.animate(torch.cat([ROWS, z]), torch.cat([NEGATIVE, z]), _clip(1), 0)
    difference = (by_hand.int() - given.animate(ROWS, NEGATIVE, _clip(1), 0, z=z).int()).abs().max()
    assert difference <= 1


def test_extension_continues_the_video_it_was_given(given: GivenFramesPipeline) -> None:
    video = _clip(6)
    longer = given.extend(ROWS, NEGATIVE, video, 0, given_frames=3)
    assert longer.shape == (6 + 9 - 3, 32, 32, 3)
    assert torch.equal(longer[:6], video)
    resized = given.extend(ROWS, NEGATIVE, _clip(2, 48, 64), 0)
    assert resized.shape == (2 + 9 - 1, 32, 32, 3)
    for count in (0, 7, 9):
        with pytest.raises(InputError, match="given_frames"):
            given.extend(ROWS, NEGATIVE, video, 0, given_frames=count)


def test_connection_depends_on_both_ends(given: GivenFramesPipeline) -> None:
    first, second = _clip(3, seed=1), _clip(3, seed=2)
    clip = given.connect(ROWS, NEGATIVE, first, second, 0)
    assert clip.shape == (9, 32, 32, 3)
    assert not torch.equal(clip, given.connect(ROWS, NEGATIVE, first.flip(0), second, 0))
    assert not torch.equal(clip, given.connect(ROWS, NEGATIVE, first, second.flip(0), 0))
    inner = torch.cat([first[:1] * 0, first[1:]])
    assert torch.equal(clip, given.connect(ROWS, NEGATIVE, inner, second, 0))


def test_one_frame_is_an_image(tiny: Path) -> None:
    pipeline = TextToVideoPipeline(
        OpenSoraT2V.from_pretrained(tiny / "transformer_t2v"),
        CausalVAEModel.from_pretrained(tiny / "vae"),
        ClipSize(1, 32, 48),
        SamplingSettings("ddim", 2, 3.0),
    )
    assert pipeline.sample(ROWS, NEGATIVE, 0).shape == (1, 32, 48, 3)


def test_bad_calls_are_named(text_to_video: TextToVideoPipeline, given: GivenFramesPipeline) -> None:
    with pytest.raises(InputError, match="one seed a prompt"):
        text_to_video(["a cat"], [1, 2])
    with pytest.raises(InputError, match="got an empty one"):
        text_to_video(["  "], [1])
    with pytest.raises(InputError, match="one image a prompt"):
        given(["a cat"], [], [1])
    with pytest.raises(InputError, match="uint8"):
        given.animate(ROWS, NEGATIVE, torch.zeros(1, 32, 32, 3), 0)
    with pytest.raises(InputError, match="without a text encoder"):
        TextToVideoPipeline(text_to_video.sampler.model, text_to_video.vae, SIZE)(["a cat"], [1])
    with pytest.raises(InputError, match="scheduler: expected one of pndm"):
        make_scheduler("unipc")
    for scheduler, steps in (("ddim", 0), ("pndm", 3)):
        with pytest.raises(InputError, match=f"num_inference_steps: expected at least {steps + 1} with {scheduler}"):
            SamplingSettings(scheduler, steps)
