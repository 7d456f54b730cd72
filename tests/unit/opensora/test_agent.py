"""The agent's method table, called like by a server."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from mora_env_opensora.agent import OpenSoraAgent
from mora_env_opensora.conditioning import fit_image
from mora_env_opensora.models import OpenSoraInpaint
from mora_env_opensora.objective import Target, VideoObjective
from mora_env_opensora.options import OpenSoraOptions
from mora_env_opensora.pipelines.pixels import frames_to_pixels
from mora_env_opensora.text.encoder import TextEncoder
from mora_environment.interface import Port
from mora_runtime import RunDirectory, Session
from mora_runtime.errors import BadArgument, SettingsError
from mora_runtime.schema import read_settings


def _options(tiny: Path, **changes: Any) -> dict[str, Any]:
    return {
        "model": str(tiny / "transformer_i2v"),
        "vae": str(tiny / "vae"),
        "text_encoder": str(tiny / "text_encoder"),
        "num_frames": 9,
        "height": 32,
        "width": 32,
        "max_length": 32,
        "num_inference_steps": 4,
        "guidance_scale": 3.0,
    } | changes


def _agent(tiny: Path, **changes: Any) -> OpenSoraAgent:
    return OpenSoraAgent.from_options(OpenSoraOptions(**_options(tiny, **changes)), torch.device("cpu"))


@pytest.fixture(scope="module")
def agent(tiny: Path) -> OpenSoraAgent:
    return _agent(tiny)


def _clip(seed: int = 0, frames: int = 9) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (frames, 32, 32, 3), dtype=torch.uint8, generator=generator)


def test_loss_equals_the_objective_on_the_stored_targets(agent: OpenSoraAgent) -> None:
    keys = agent.encode(prompts=["a cat", "a dog walks"])["keys"]
    targets = [agent.store_target(pixels=_clip(seed))["key"] for seed in (1, 2)]
    z = agent.modulation_rows(text="[Mod]")["rows"].requires_grad_()
    images = (torch.rand(2, 3, 32, 32) * 2 - 1).requires_grad_()
    loss = agent.loss(z=z, prompt_keys=keys, images=images, target_keys=targets, seeds=[5, 6])["loss"]
    assert loss.shape == ()
    assert loss.dtype == torch.float32
    loss.backward()
    assert z.grad.abs().max() > 0
    assert images.grad.abs().max() > 0
    assert all(parameter.grad is not None for parameter in agent.module().parameters())

    vae = agent._vae
    texts = [agent._encoder.rows(key) for key in keys]
    posteriors = [vae.encode(_clip(seed).permute(3, 0, 1, 2)[None] / 127.5 - 1) for seed in (1, 2)]
    stored = [Target(posterior.mean[0], posterior.std[0]) for posterior in posteriors]
    objective = VideoObjective(agent.module(), vae, agent._size)
    torch.testing.assert_close(loss, objective.loss(z, texts, images, stored, [5, 6]), rtol=1e-5, atol=1e-6)


def test_only_the_transformer_trains(agent: OpenSoraAgent) -> None:
    assert isinstance(agent.module(), OpenSoraInpaint)
    assert all(parameter.requires_grad for parameter in agent.module().parameters())
    assert not any(parameter.requires_grad for parameter in agent._vae.parameters())
    assert not agent.module().training


def test_content_keys_are_stable(agent: OpenSoraAgent) -> None:
    assert agent.encode(prompts=["A cat"])["keys"] == agent.encode(prompts=["a cat"])["keys"]
    assert agent.store_target(pixels=_clip())["key"] == agent.store_target(pixels=_clip().clone())["key"]
    assert agent.store_target(pixels=_clip(1))["key"] != agent.store_target(pixels=_clip(2))["key"]


def test_sampling_works_after_the_text_encoder_is_unloaded(tiny: Path) -> None:
    agent = _agent(tiny)
    keys = agent.encode(prompts=["a cat"])["keys"]
    assert agent.unload_text_encoder() == {"unloaded": True}
    images = torch.rand(1, 3, 32, 32) * 2 - 1
    clips = agent.generate(z=torch.randn(2, 32), prompt_keys=keys, seeds=[1], images=images)["outputs"]
    assert clips.shape == (1, 9, 32, 32, 3)
    assert not agent._encoder.loaded


def test_generate_makes_the_clips_of_the_pipeline_in_any_batch(agent: OpenSoraAgent) -> None:
    keys = agent.encode(prompts=["a cat", "a dog walks"])["keys"]
    z = agent.modulation_rows(text="[Mod]")["rows"]
    images = torch.rand(2, 3, 48, 40, generator=torch.Generator().manual_seed(3)) * 2 - 1
    both = agent.generate(z=z, prompt_keys=keys, seeds=[5, 6], images=images)["outputs"]
    assert both.shape == (2, 9, 32, 32, 3)
    assert both.dtype == torch.uint8
    for index, (key, seed) in enumerate(zip(keys, (5, 6), strict=True)):
        first = fit_image(images[index : index + 1], 32, 32)
        pipeline, negative = agent._pipeline(None, None), agent._negative()
        assert torch.equal(both[index], pipeline.sample(agent._encoder.rows(key), negative, [first], [0], seed, z=z))


def test_generate_refuses_a_batch_of_unequal_parts(agent: OpenSoraAgent) -> None:
    key = agent.encode(prompts=["a cat"])["keys"][0]
    for keys, seeds, num_images in (([key], [1, 2], 1), ([key], [1], 2), ([], [], 0)):
        with pytest.raises(BadArgument, match="expected as many seeds and images as prompts"):
            agent.generate(z=None, prompt_keys=keys, seeds=seeds, images=torch.zeros(num_images, 3, 32, 32))


def test_finished_frames_are_in_shared_memory(agent: OpenSoraAgent, tmp_path: Path) -> None:
    key = agent.encode(prompts=["a cat"])["keys"][0]
    alone = agent.extend_video(["a cat"], [1], _clip()[None, -2:])["outputs"]
    with Session.open(RunDirectory.create(tmp_path / "run"), "video.0") as session:
        for made in (
            agent.generate(z=None, prompt_keys=[key], seeds=[1], images=torch.zeros(1, 3, 32, 32))["outputs"],
            agent.connect_videos(["a cat"], [1], _clip(1)[-1:], _clip(2)[:1])["outputs"],
            agent.extend_video(["a cat"], [1], _clip()[None, -2:])["outputs"],
        ):
            slot, _ = session.store.arena.slot_of(made)
            assert slot.segment.address + slot.offset == made.data_ptr()  # handed over without a copy
        assert torch.equal(made, alone)
        del made, slot


def test_text_dropout_uses_the_samples_seed(tiny: Path) -> None:
    always, never = _agent(tiny, text_dropout=1.0, default_text_ratio=0.0), _agent(tiny)
    target = always.store_target(pixels=_clip())["key"]
    never.store_target(pixels=_clip())
    image = torch.zeros(1, 3, 32, 32)

    def loss(agent: OpenSoraAgent, prompt: str) -> torch.Tensor:
        keys = agent.encode(prompts=[prompt])["keys"]
        return agent.loss(z=None, prompt_keys=keys, images=image, target_keys=[target], seeds=[4])["loss"]

    assert torch.equal(loss(always, "a cat"), loss(never, ""))
    assert not torch.equal(loss(never, "a cat"), loss(never, ""))


def test_bad_arguments_are_refused_as_the_callers_error(agent: OpenSoraAgent) -> None:
    key = agent.encode(prompts=["a cat"])["keys"][0]
    target = agent.store_target(pixels=_clip())["key"]
    image = torch.zeros(1, 3, 32, 32)
    good = {"z": None, "prompt_keys": [key], "images": image, "target_keys": [target], "seeds": [1]}
    for changes, named in (
        ({"prompt_keys": ["0" * 64]}, "prompt key"),
        ({"target_keys": ["0" * 64]}, "target key"),
        ({"seeds": [1, 2]}, "seed"),
        ({"images": torch.zeros(2, 3, 32, 32)}, "batch"),
        ({"z": torch.zeros(2, 31)}, "z: expected"),
    ):
        with pytest.raises(BadArgument, match=named):
            agent.loss(**(good | changes))
    for pixels in (_clip(frames=8), _clip().float(), _clip()[:, :16]):
        with pytest.raises(BadArgument, match="pixels: expected uint8"):
            agent.store_target(pixels=pixels)
    with pytest.raises(BadArgument, match="images: expected"):
        agent.generate(z=None, prompt_keys=[key], seeds=[0], images=torch.zeros(1, 32, 32, 3))


def test_saved_weights_load_with_their_config(agent: OpenSoraAgent, tmp_path: Path) -> None:
    agent.module().save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text()) == agent.model_config()
    assert OpenSoraInpaint.from_pretrained(tmp_path).config == agent.module().config


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"num_frames": 10}, r"4k \+ 1"),
        ({"height": 40}, "height"),
        ({"snr_gama": 5.0}, "did you mean `snr_gamma`"),
        ({"dtype": "float16"}, "dtype"),
        ({"num_inference_steps": 3}, "pndm"),
        ({"gradient_steps": 5}, "gradient_steps 5 must be between 1 and num_inference_steps 4"),
        ({"gradient_steps": 0}, "gradient_steps"),
    ],
)
def test_options_are_checked(tiny: Path, changes: dict[str, Any], named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        read_settings(OpenSoraOptions, _options(tiny, **changes), source="test")


def test_options_and_sizes_are_read_without_model_libraries(tiny: Path) -> None:
    request = {"kind": "opensora", "source": "agents.video.options", "options": _options(tiny)}
    script = (
        "import runpy, sys\n"
        "for name in ('torch', 'diffusers', 'transformers'):\n"
        "    sys.modules[name] = None\n"
        "sys.argv[1:] = ['options']\n"
        "runpy.run_module('mora_env_opensora', run_name='__main__', alter_sys=True)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    answer = json.loads(done.stdout)
    counts = {component["name"]: component["num_parameters"] for component in answer["components"]}
    agent = _agent(tiny)
    agent.modulation_rows(text="[Mod]")
    assert counts == {
        "transformer": sum(parameter.numel() for parameter in agent.module().parameters()),
        "vae": sum(parameter.numel() for parameter in agent._vae.parameters()),
        "text_encoder": sum(parameter.numel() for parameter in agent._encoder._model.parameters()),
    }
    assert answer["options"]["snr_gamma"] == 5.0
    assert (answer["weights"], answer["weights_folder"]) == ("model", str(tiny / "transformer_i2v"))
    assert answer["interface"]["generates"]["num_frames"] == 9


def test_the_interface_tells_the_methods_and_the_size(tiny: Path) -> None:
    found = OpenSoraOptions(**_options(tiny)).interface()
    assert found.takes == {"images": Port(modality="images")}
    assert found.generates == Port(modality="frames", height=32, width=32, num_frames=9)
    assert all((found.has_loss, found.needs_targets, found.has_text, found.has_modulation, found.has_noise))
    assert not found.gives
    gives = OpenSoraOptions(**_options(tiny, gradient_steps=1)).interface().gives
    assert gives == {"frames": found.generates}


def test_a_served_clip_has_the_same_bytes_alone_and_in_a_batch(agent: OpenSoraAgent) -> None:
    frames = torch.stack([_clip(1)[0], _clip(2)[0]])
    both = agent.image_to_video(["a cat", "a dog"], [3, 4], frames)["outputs"]
    assert both.shape == (2, 9, 32, 32, 3)
    second = agent.image_to_video(["a dog"], [4], frames[1:])["outputs"]
    assert torch.equal(both[1], second[0])
    keys = agent.encode(prompts=["a dog"])["keys"]
    pixels = frames_to_pixels(frames[1:], 32, 32)
    assert torch.equal(second, agent.generate(z=None, prompt_keys=keys, seeds=[4], images=pixels)["outputs"])


def test_a_served_prompt_is_encoded_once(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[str] = []
    rows_of = TextEncoder.rows_of
    monkeypatch.setattr(TextEncoder, "rows_of", lambda self, text: (encoded.append(text), rows_of(self, text))[1])
    agent = _agent(tiny)
    for prompt in ("a cat", "a dog", "a cat"):
        agent.image_to_video([prompt], [1], _clip()[:1])
    assert encoded == ["a cat", "a dog"]


def test_a_negative_prompt_steers_a_clip_only_with_guidance(agent: OpenSoraAgent) -> None:
    def made(negative_prompt: str | None, guidance_scale: float) -> torch.Tensor:
        asked = {"negative_prompt": negative_prompt, "guidance_scale": guidance_scale}
        outputs: torch.Tensor = agent.image_to_video(["a cat"], [1], _clip()[:1], **asked)["outputs"]
        return outputs

    assert agent.describe()["takes_negative_prompt"]
    assert torch.equal(made(agent._options.negative_prompt, 4.0), made(None, 4.0))
    assert not torch.equal(made("a dog", 4.0), made(None, 4.0))
    assert torch.equal(made("a dog", 1.0), made(None, 1.0))
    asked = {"guidance_scale": 4.0, "negative_prompt": "a dog"}
    for method, given in (("extend_video", {"videos": _clip()[None, :1]}), ("connect_videos", _ends())):
        capability = getattr(agent, method)
        plain = capability(["a cat"], [1], guidance_scale=4.0, **given)["outputs"]
        assert not torch.equal(capability(["a cat"], [1], **asked, **given)["outputs"], plain), method


def _ends() -> dict[str, torch.Tensor]:
    return {"images": _clip()[:1], "images_after": _clip(1)[:1]}


def test_a_served_extension_continues_the_given_frames(agent: OpenSoraAgent) -> None:
    after = agent.extend_video(["a cat"], [1], _clip()[None, -2:])["outputs"]
    assert after.shape == (1, 7, 32, 32, 3)
    assert torch.equal(after[0], _whole_clip(agent, _clip()[-2:], (0, 1))[2:])
    for num_given in (0, 9):
        with pytest.raises(BadArgument, match="expected 1 to 8 given frames"):
            agent.extend_video(["a cat"], [1], _clip()[None, :num_given])


def test_a_served_transition_depends_on_both_ends(agent: OpenSoraAgent) -> None:
    first, last = _clip(1)[-1:], _clip(2)[:1]
    between = agent.connect_videos(["a cat"], [1], first, last)["outputs"]
    assert torch.equal(between[0], _whole_clip(agent, torch.cat([first, last]), (0, -1)))
    assert not torch.equal(between, agent.connect_videos(["a cat"], [1], last, last)["outputs"])
    assert not torch.equal(between, agent.connect_videos(["a cat"], [1], first, first)["outputs"])


def _whole_clip(agent: OpenSoraAgent, frames: torch.Tensor, given: tuple[int, ...]) -> torch.Tensor:
    """The clip of "a cat" and seed 1 around these frames, directly from the pipeline."""
    key = agent.encode(prompts=["a cat"])["keys"][0]
    images = [frame[None] for frame in frames_to_pixels(frames, 32, 32)]
    pipeline = agent._pipeline(None, None)
    return pipeline.sample(agent._encoder.rows(key), agent._negative(), images, given, 1)


def test_a_cancelled_clip_stops_at_its_next_step_and_the_next_clip_is_made(
    agent: OpenSoraAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = torch.stack([_clip(1)[0], _clip(2)[0]])
    alone = agent.image_to_video(["a dog"], [4], frames[1:])["outputs"]
    steps: list[tuple[int, int]] = []
    monkeypatch.setattr("mora_env_opensora.agent.report_step", lambda *step: steps.append(step))
    monkeypatch.setattr(
        "mora_env_opensora.agent.cancelled_samples", lambda: frozenset({0}) if steps[-1][0] == 2 else frozenset()
    )
    made = agent.image_to_video(["a cat", "a dog"], [3, 4], frames)["outputs"]
    total = steps[0][1]
    numbers = list(dict.fromkeys(step for step, _ in steps))
    assert numbers[:4] == [0, 1, 2, total // 2]  # then the second clip begins
    assert steps[-1] == (total, total)
    assert not made[0].any()
    assert torch.equal(made[1], alone[0])


def test_given_frames_of_a_wrong_kind_are_refused_by_name(agent: OpenSoraAgent) -> None:
    with pytest.raises(BadArgument, match="images: expected uint8"):
        agent.image_to_video(["a cat"], [1], torch.zeros(1, 32, 32, 3))
    with pytest.raises(BadArgument, match="videos: expected 1 to 8 given frames, got 9"):
        agent.extend_video(["a cat"], [1], _clip()[None])
    with pytest.raises(BadArgument, match="expected a seed and given frames for each prompt"):
        agent.image_to_video(["a cat"], [1, 2], _clip()[:1])
