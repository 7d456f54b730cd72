"""A clip that is cancelled while the autoencoder works ends before the autoencoder's next block."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from mora_env_opensora.agent import OpenSoraAgent
from mora_env_opensora.options import OpenSoraOptions
from mora_runtime.errors import Cancelled

FRAMES = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module", params=[False, True], ids=["whole", "in tiles"])
def agent(tiny: Path, request: pytest.FixtureRequest) -> OpenSoraAgent:
    options = OpenSoraOptions(
        model=str(tiny / "transformer_i2v"), vae=str(tiny / "vae"), text_encoder=str(tiny / "text_encoder"),
        num_frames=9, height=32, width=32, max_length=32, num_inference_steps=4, guidance_scale=3.0,
        vae_tiling=request.param,
    )  # fmt: skip
    made = OpenSoraAgent.from_options(options, torch.device("cpu"))
    made._vae.tile_latent_min_size_t = 2
    return made


@pytest.fixture
def blocks(agent: OpenSoraAgent) -> Iterator[list[str]]:
    """The blocks of the autoencoder that have run: `encoder` or `decoder` of each."""
    ran: list[str] = []
    vae = agent._vae

    def counted(name: str) -> Callable[..., None]:
        return lambda *_: ran.append(name)

    handles = [
        step.register_forward_hook(counted(name))
        for name, level in (("encoder", vae.encoder.down[0]), ("decoder", vae.decoder.up[0]))
        for step in level.block
    ]
    yield ran
    for handle in handles:
        handle.remove()


def test_a_clip_that_is_cancelled_while_it_is_decoded_ends_there_and_leaves_the_next_clip_its_bytes(
    agent: OpenSoraAgent, blocks: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = agent.image_to_video(["a dog"], [4], FRAMES[1:])["outputs"]
    num_of_a_clip = blocks.count("decoder")
    blocks.clear()
    monkeypatch.setattr(
        "mora_env_opensora.agent.cancelled_samples", lambda: frozenset({0}) if "decoder" in blocks else frozenset()
    )
    made = agent.image_to_video(["a cat", "a dog"], [3, 4], FRAMES)["outputs"]
    assert not made[0].any()
    assert torch.equal(made[1], alone[0])
    assert blocks.count("decoder") == 1 + num_of_a_clip


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_a_call_that_is_cancelled_in_the_autoencoder_ends_before_the_next_block(
    agent: OpenSoraAgent, blocks: list[str], monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    def report(step: int, num_steps: int) -> None:
        if part in blocks:
            raise Cancelled("the caller cancelled this call")

    agent._vae._grey_chunks.clear()
    monkeypatch.setattr("mora_env_opensora.agent.report_step", report)
    with pytest.raises(Cancelled):
        agent.image_to_video(["a cat", "a dog"], [3, 4], FRAMES)
    assert blocks.count(part) == 1
    monkeypatch.undo()
    again = agent.image_to_video(["a cat"], [3], FRAMES[:1])["outputs"]
    assert again.any(), "the next call is not disturbed"


def test_a_call_that_is_cancelled_among_its_prompts_encodes_no_further_one(
    agent: OpenSoraAgent, blocks: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[str] = []

    def rows_of(text: str) -> torch.Tensor:
        encoded.append(text)
        return torch.zeros(1, 1)

    def check() -> None:
        if encoded:
            raise Cancelled("the caller cancelled this call")

    monkeypatch.setattr(agent, "_rows_of", rows_of)
    monkeypatch.setattr("mora_env_opensora.agent.check_cancelled", check)
    with pytest.raises(Cancelled):
        agent.image_to_video(["a cat", "a dog"], [3, 4], FRAMES)
    assert encoded == ["a cat"]
    assert blocks == []
