"""MUSIQ's agent: imaging quality."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from mora_env_vbench.musiq.network import Musiq
from mora_env_vbench.musiq.patches import multiscale_patches
from mora_env_vbench.musiq.sizes import MusiqSizes
from mora_env_vbench.musiq.tiny import tiny_musiq
from mora_runtime.errors import BadArgument
from tiny_agents import built, clip, measured, tiny_agent
from torch import Tensor

IMAGING = "imaging_quality"
HIDDEN_SCORE = -1e3  # of a pair with a padded patch, in the published network


def published_answer(network: Musiq, pictures: Tensor) -> Tensor:
    """The scores with all padded patches in the attention, hidden as the published network hides them."""
    patches = multiscale_patches(pictures * 2 - 1)
    encoder = network.transformer_encoder
    x = network._tokens(patches) + encoder.posembed_input(patches.positions) + encoder.scaleembed_input(patches.scales)
    x = torch.cat([encoder.cls.expand(len(x), -1, -1), x], dim=1)
    is_real = torch.cat([torch.ones(1, dtype=torch.bool), patches.is_real])
    is_pair = is_real[:, None] & is_real
    for block in encoder.transformer.values():
        attention, normed = block.attention, block.norm1(x)
        query, key, value = (
            attention._heads(layer(normed)) for layer in (attention.query, attention.key, attention.value)
        )
        scores = (query @ key.transpose(-2, -1)) / math.sqrt(query.shape[-1])
        weights = scores.masked_fill(~is_pair, HIDDEN_SCORE).softmax(dim=-1)
        x = x + attention.out((weights @ value).transpose(1, 2).flatten(2))
        x = x + block.mlp(block.norm2(x))
    return network.head(encoder.encoder_norm(x)[:, 0])[:, 0]


def test_scores_without_padding_are_those_of_the_published_network_with_it() -> None:
    torch.manual_seed(0)
    network = Musiq(MusiqSizes(width=32, mlp=48, num_heads=4, num_blocks=2, stem=32, block=32)).eval()
    pictures = torch.rand(2, 3, 90, 160)
    with torch.inference_mode():
        assert not multiscale_patches(pictures).is_real.all()
        torch.testing.assert_close(network(pictures), published_answer(network, pictures), atol=1e-5, rtol=1e-5)


def test_the_score_is_the_mean_of_the_frames_on_a_scale_of_one() -> None:
    found = measured("musiq", IMAGING, clip(3, 48, 64))
    assert found["frames"].shape == (3,)
    assert found["score"] == pytest.approx(found["frames"].mean().item() / 100, rel=1e-6)


def test_a_frame_has_the_same_score_alone() -> None:
    frames = clip(3, 48, 64)
    together = measured("musiq", IMAGING, frames)["frames"]
    assert measured("musiq", IMAGING, frames[1:2])["frames"].item() == pytest.approx(together[1].item(), rel=1e-6)


def test_the_mode_is_part_of_the_version_and_changes_large_frames(tmp_path: Path) -> None:
    options = tiny_musiq(tmp_path)
    cut = built("musiq", {**options, "mode": "shorter_centercrop"})
    assert cut.describe()["versions"] != tiny_agent("musiq").describe()["versions"]
    frames = clip(1, 520, 640)
    assert cut.measure(IMAGING, frames, 8.0, "", "")["score"] != measured("musiq", IMAGING, frames)["score"]


def test_scores_that_are_not_finite_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiny_agent("musiq")._network.head, "bias", torch.nn.Parameter(torch.tensor([math.inf])))
    with pytest.raises(BadArgument, match="not finite"):
        measured("musiq", IMAGING, clip(1, 48, 64))
