"""The transformers refuse what does not fit, and run in bfloat16."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from mora_env_opensora.models import InputError, OpenSoraInpaint, OpenSoraT2V
from mora_env_opensora.tiny import TRANSFORMER_CONFIG


@pytest.fixture(scope="module")
def model() -> OpenSoraT2V:
    torch.manual_seed(0)
    return OpenSoraT2V.from_config(TRANSFORMER_CONFIG)


def _call(model: OpenSoraT2V, **changes: Any) -> torch.Tensor:
    arguments = {
        "hidden_states": torch.zeros(2, 4, 3, 8, 8),
        "timestep": torch.tensor([1, 2]),
        "encoder_hidden_states": torch.zeros(2, 1, 5, 32),
        "encoder_attention_mask": torch.ones(2, 1, 5),
    }
    return model(**(arguments | changes))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"hidden_states": torch.zeros(2, 5, 3, 8, 8)}, "hidden_states"),
        ({"hidden_states": torch.zeros(2, 4, 8, 8)}, "hidden_states"),
        ({"hidden_states": torch.zeros(2, 4, 3, 1, 8)}, "hidden_states"),
        ({"attention_mask": torch.ones(2, 3, 4, 4)}, "attention_mask"),
        ({"attention_mask": torch.ones(2, 4, 3, 8, 8)}, "attention_mask"),
        ({"encoder_attention_mask": None}, "encoder_attention_mask"),
        ({"encoder_attention_mask": torch.ones(2, 5)}, "encoder_attention_mask"),
        ({"encoder_hidden_states": torch.zeros(2, 5, 32)}, "encoder_hidden_states"),
        ({"encoder_hidden_states": torch.zeros(2, 1, 5, 31)}, "encoder_hidden_states"),
        ({"use_image_num": 3}, "use_image_num"),
    ],
)
def test_inputs_of_the_wrong_shape_are_named(model: OpenSoraT2V, changes: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=f"{named}.*expected.*got"):
        _call(model, **changes)


def test_a_single_latent_frame_has_nothing_to_fill_in() -> None:
    model = OpenSoraInpaint.from_config(TRANSFORMER_CONFIG)
    with pytest.raises(InputError, match="at least 2 latent frames, got 1"):
        _call(model, hidden_states=torch.zeros(2, 12, 1, 8, 8))


def test_sides_beyond_the_last_whole_patch_are_dropped(model: OpenSoraT2V) -> None:
    assert _call(model, hidden_states=torch.zeros(2, 4, 3, 9, 7)).shape == (2, 4, 3, 8, 6)


def test_bfloat16_stays_close_to_float32() -> None:
    torch.manual_seed(1)
    config = TRANSFORMER_CONFIG | {"num_layers": 8, "num_attention_heads": 4, "cross_attention_dim": 96}
    model = OpenSoraT2V.from_config(config).eval()
    inputs = {
        "hidden_states": torch.randn(2, 4, 3, 8, 8),
        "timestep": torch.tensor([100, 900]),
        "encoder_hidden_states": torch.randn(2, 1, 5, 32),
    }
    with torch.no_grad():
        exact = _call(model, **inputs)
        inputs["encoder_hidden_states"] = inputs["encoder_hidden_states"].bfloat16()
        rounded = _call(model.bfloat16(), **inputs)
    assert rounded.dtype == torch.bfloat16
    error = (rounded.float() - exact).norm() / exact.norm()
    assert error < 2e-2


def test_masks_need_no_memory_of_the_sequence_length_squared(model: OpenSoraT2V) -> None:
    from mora_env_opensora.models.attention_bias import text_bias, video_bias

    latents = torch.zeros(1, 4, 3, 8, 8)
    mask = torch.ones(1, 3, 8, 8)
    assert video_bias(mask, latents, 2, torch.float32) is None
    assert text_bias(torch.ones(1, 5), torch.float32) is None
    mask[:, 2] = 0
    assert video_bias(mask, latents, 2, torch.float32).shape == (1, 1, 1, 48)


def test_inpaint_gradient_reaches_the_given_frames_of_the_tiny_model(tiny: Path) -> None:
    model = OpenSoraInpaint.from_pretrained(tiny / "transformer_i2v")
    latents = torch.randn(2, 12, 3, 8, 8, requires_grad=True)
    _call(model, hidden_states=latents).square().mean().backward()
    assert latents.grad[:, 4:8].abs().max() > 0
    assert latents.grad[:, 8:].abs().max() > 0
