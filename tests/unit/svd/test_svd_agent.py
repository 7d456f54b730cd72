"""The method table of Stable Video Diffusion's agent, called like by a server."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from mora_env_svd.pixels import to_frames
from mora_env_svd.svd.agent import SvdAgent
from mora_env_svd.svd.options import SvdOptions
from mora_env_svd.svd.tiny import WIDTH
from mora_env_svd.tiny_text import save_tiny_text
from mora_environment.job_folder import shared_folders
from mora_runtime.errors import BadArgument, SettingsError
from mora_runtime.schema import read_settings
from safetensors.torch import load_file, save_file
from torch import Tensor

# numpy warns about how the scheduler of diffusers reads a tensor
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
PICTURES = torch.randint(0, 256, (2, 40, 24, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
PROMPTS, SEEDS = ["a cat", "a dog walks"], [3, 4]


def made(tiny_svd: dict[str, Any], **changes: Any) -> SvdAgent:
    return SvdAgent.from_options(SvdOptions(**(tiny_svd | changes)), torch.device("cpu"))


@pytest.fixture(scope="module")
def agent(tiny_svd: dict[str, Any]) -> SvdAgent:
    return made(tiny_svd)


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    sent: list[dict[str, Any]] = []
    monkeypatch.setattr("mora_env_svd.clip_generator.report_part", lambda **values: sent.append(values))
    return sent


def clip(seed: int = 0, num_frames: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (num_frames, 32, 32, 3), dtype=torch.uint8, generator=generator)


def first_frames() -> Tensor:
    return torch.rand(2, 3, 40, 32, generator=torch.Generator().manual_seed(3)) * 2.0 - 1.0


def test_frames_of_forward_are_those_of_generate(agent: SvdAgent) -> None:
    z = agent.modulation_rows(text="[Mod]")["rows"].requires_grad_()
    images = first_frames().requires_grad_()
    frames = agent.forward(z=z, prompt_keys=PROMPTS, seeds=SEEDS, images=images)["frames"]
    clips = agent.generate(z=z, prompt_keys=PROMPTS, seeds=SEEDS, images=images)["outputs"]
    assert frames.shape == (2, 5, 3, 32, 32)
    distance = (torch.stack([to_frames(each.detach()) for each in frames]).int() - clips.int()).abs()
    assert distance.max() <= 1  # attention has another kernel where a gradient is wanted
    frames.square().mean().backward()
    assert z.grad.abs().max() > 0
    assert images.grad.abs().max() > 0
    assert any(parameter.grad.abs().max() > 0 for parameter in agent.module().parameters())
    agent.module().zero_grad()


def test_only_the_last_steps_of_forward_have_a_gradient(tiny_svd: dict[str, Any]) -> None:
    agent = made(tiny_svd, num_inference_steps=3, gradient_steps=1)
    with_gradient: list[bool] = []
    handle = agent.module().register_forward_hook(lambda *_: with_gradient.append(torch.is_grad_enabled()))
    images = first_frames()[:1].requires_grad_()
    agent.forward(z=None, prompt_keys=["a"], seeds=[1], images=images)["frames"].sum().backward()
    handle.remove()
    assert with_gradient == [False, False, True]
    assert images.grad.abs().max() > 0


def test_forward_with_targets_returns_the_loss_too(agent: SvdAgent) -> None:
    targets = [agent.store_target(pixels=clip(seed))["key"] for seed in (1, 2)]
    assert agent.has_targets(keys=[*targets, "0" * 64])["found"] == [True, True, False]
    with torch.no_grad():
        call = {"z": None, "prompt_keys": PROMPTS, "images": first_frames(), "target_keys": targets, "seeds": SEEDS}
        values, loss = agent.forward(**call), agent.loss(**call)["loss"]
        assert torch.equal(values["loss"], loss)
        assert torch.equal(agent.loss(**(call | {"prompt_keys": ["", "other"]}))["loss"], loss), "no text"
        assert not torch.equal(agent.loss(**(call | {"seeds": [5, 6]}))["loss"], loss)


def test_only_the_unet_trains_and_saved_weights_load(tiny_svd: dict[str, Any], agent: SvdAgent, tmp_path: Path) -> None:
    models = agent._models
    assert all(parameter.requires_grad for parameter in agent.module().parameters())
    for frozen in (models.coder.vae, models.encoder.model):
        assert not any(parameter.requires_grad for parameter in frozen.parameters())
    models.unet.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(agent.model_config()))
    weights = tmp_path / "diffusion_pytorch_model.safetensors"
    save_file(load_file(weights) | {"conv_out.bias": torch.ones(4)}, weights)
    loaded = made(tiny_svd, unet=str(tmp_path))
    assert torch.equal(loaded.module().conv_out.bias, torch.ones(4))
    assert loaded.model_config() == agent.model_config()


def test_a_clip_has_the_same_bytes_alone_and_in_a_batch(agent: SvdAgent) -> None:
    both = agent.image_to_video(PROMPTS, SEEDS, PICTURES)["outputs"]
    assert both.shape == (2, 5, 32, 32, 3)
    for index in range(2):
        alone = agent.image_to_video([""], [SEEDS[index]], PICTURES[index : index + 1])["outputs"]
        assert torch.equal(alone[0], both[index])
    assert not torch.equal(both[0], both[1])


def test_an_extension_is_the_clip_of_the_last_frame_without_it(agent: SvdAgent) -> None:
    video = clip(1, 7)[None]
    extended = agent.extend_video(["a"], [1], video)["outputs"]
    assert torch.equal(extended, agent.image_to_video(["a"], [1], video[:, -1])["outputs"][:, 1:])


def test_z_follows_the_embedding_in_both_halves_of_guidance(agent: SvdAgent) -> None:
    seen: list[Tensor] = []
    handle = agent.module().register_forward_pre_hook(lambda _, arguments: seen.append(arguments[2]))
    z = torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(1))
    agent.image_to_video(["a"], [1], PICTURES[:1], z=z)
    agent.image_to_video(["a"], [1], PICTURES[:1], guidance_scale=1.0, z=z)
    handle.remove()
    assert [rows.shape for rows in seen] == [(2, 4, WIDTH)] * 2 + [(1, 4, WIDTH)] * 2
    assert torch.equal(seen[0][:, 1:], z.expand(2, -1, -1))
    assert not seen[0][0, 0].any()
    assert seen[0][1, 0].any()


@pytest.mark.parametrize("is_extension", [False, True])
def test_parts_are_the_first_frames_of_the_result(
    agent: SvdAgent, parts: list[dict[str, Any]], is_extension: bool
) -> None:
    given: dict[str, Any] = {"videos": clip(1, 2)[None]} if is_extension else {"images": PICTURES[:1]}
    method = agent.extend_video if is_extension else agent.image_to_video
    outputs = method(["a cat"], [3], **given)["outputs"]
    (part,) = parts
    end = 2 if is_extension else 3
    assert (part["sample"], part["start"]) == (0, 0)
    assert torch.equal(part["outputs"], outputs[0, :end])


@pytest.mark.parametrize("moment", ["sampling", "decoding"])
def test_a_cancelled_clip_ends_there_and_the_next_keeps_its_bytes(
    agent: SvdAgent, monkeypatch: pytest.MonkeyPatch, parts: list[dict[str, Any]], moment: str
) -> None:
    alone = agent.image_to_video(PROMPTS[1:], SEEDS[1:], PICTURES[1:])["outputs"]
    parts.clear()
    steps: list[tuple[int, int]] = []
    monkeypatch.setattr("mora_env_svd.clip_generator.report_step", lambda *step: steps.append(step))

    def cancelled() -> frozenset[int]:
        is_time = steps[-1][0] == 1 if moment == "sampling" else bool(parts)
        return frozenset({0}) if is_time else frozenset()

    monkeypatch.setattr("mora_env_svd.clip_generator.cancelled_samples", cancelled)
    outputs = agent.image_to_video(PROMPTS, SEEDS, PICTURES)["outputs"]
    assert not outputs[0].any()
    assert torch.equal(outputs[1], alone[0])
    assert len([part for part in parts if part["sample"] == 0]) == (moment == "decoding")
    assert [step for step, _ in steps] == sorted(step for step, _ in steps)
    assert {total for _, total in steps} == {4}


def test_z_starts_as_the_options_declare(tiny_svd: dict[str, Any], agent: SvdAgent) -> None:
    grey = agent.modulation_rows(text="[Mod]")["rows"]
    assert grey.shape == (1, WIDTH)
    with torch.no_grad():
        assert torch.equal(grey, agent._models.encoder.embeddings(torch.zeros(1, 3, 64, 64))[0])
    assert torch.equal(agent.modulation_rows(text="other")["rows"], grey)
    several = made(tiny_svd, modulation_rows=3).modulation_rows(text="[Mod]")["rows"]
    assert several.shape == (3, WIDTH)
    assert torch.equal(several[1:2], grey)
    assert len(several.unique(dim=0)) == 3, "rows that were equal would stay equal in training"
    random = made(tiny_svd, modulation_start="random", modulation_rows=3)
    rows = random.modulation_rows(text="[Mod]")["rows"]
    assert torch.allclose(rows.norm(dim=1), several.norm(dim=1))
    assert torch.equal(random.modulation_rows(text="[Mod]")["rows"], rows)
    assert random.modulation_rows(text="[Mod]", new_token=True)["rows"].shape == (1, WIDTH)


def test_z_starts_from_the_text_where_there_is_a_text_encoder(tiny_svd: dict[str, Any], tmp_path: Path) -> None:
    save_tiny_text(tmp_path / "clip", WIDTH)
    with shared_folders(tmp_path / "job"):
        agent = made(tiny_svd, text_encoder=str(tmp_path / "clip"))
    rows = agent.modulation_rows(text="[Mod]")["rows"]
    assert rows.shape == (5, WIDTH)  # the tiny tokenizer knows single characters
    assert not agent._start._text.loaded
    assert agent.modulation_rows(text="[Mod]", new_token=True)["rows"].shape == (1, WIDTH)
    assert not torch.equal(agent.modulation_rows(text="[mod]")["rows"][:1], agent.modulation_rows(text="x")["rows"])
    names = [component.name for component in SvdOptions(**tiny_svd, text_encoder=str(tmp_path / "clip")).components()]
    assert "text_encoder" in names
    save_tiny_text(tmp_path / "wide", 2 * WIDTH)
    with pytest.raises(BadArgument, match=f"rows have {2 * WIDTH} channels, expected {WIDTH}"):
        made(tiny_svd, text_encoder=str(tmp_path / "wide")).modulation_rows(text="[Mod]")


def test_servers_of_one_job_share_targets(tiny_svd: dict[str, Any], tmp_path: Path) -> None:
    with shared_folders(tmp_path):
        first, second = made(tiny_svd), made(tiny_svd)
    target = first.store_target(pixels=clip())["key"]
    assert second.has_targets(keys=[target])["found"] == [True]
    call = {"z": None, "prompt_keys": PROMPTS, "images": first_frames(), "target_keys": [target] * 2, "seeds": SEEDS}
    losses = [agent.loss(**call)["loss"] for agent in (first, second)]
    assert torch.equal(*losses)


def test_half_precision_and_recomputation_train_and_sample(tiny_svd: dict[str, Any], agent: SvdAgent) -> None:
    half = made(tiny_svd, dtype="bfloat16", vae_dtype="bfloat16")
    recomputing = made(tiny_svd, gradient_checkpointing=True)
    found = []
    for each in (agent, half, recomputing):
        target = each.store_target(pixels=clip())["key"]
        images = first_frames()[:1].requires_grad_()
        loss = each.loss(z=None, prompt_keys=[""], images=images, target_keys=[target], seeds=[1])["loss"]
        loss.backward()
        found.append((loss.item(), images.grad))
    assert found[1][0] == pytest.approx(found[0][0], rel=0.05)
    assert found[1][1].abs().max() > 0
    assert torch.equal(found[2][1], found[0][1])
    frames = half.forward(z=None, prompt_keys=[""], seeds=[1], images=first_frames()[:1])["frames"]
    assert frames.dtype == torch.float32
    assert frames.isfinite().all()


def test_bad_arguments_are_refused_as_the_callers_error(tiny_svd: dict[str, Any], agent: SvdAgent) -> None:
    target = agent.store_target(pixels=clip())["key"]
    image = torch.zeros(1, 3, 32, 32)
    good = {"z": None, "prompt_keys": [""], "images": image, "target_keys": [target], "seeds": [1]}
    for changes, named in (
        ({"target_keys": ["0" * 64]}, "target key"),
        ({"target_keys": [target] * 2}, "2 targets"),
        ({"seeds": [1, 2]}, "as many seeds"),
        ({"z": torch.zeros(2, WIDTH - 1)}, "z: expected"),
    ):
        with pytest.raises(BadArgument, match=named):
            agent.loss(**(good | changes))
    with pytest.raises(BadArgument, match="pixels: expected uint8"):
        agent.store_target(pixels=clip(num_frames=4))
    with pytest.raises(BadArgument, match="videos: expected at least one given frame"):
        agent.extend_video(["a"], [1], clip()[None, :0])
    with pytest.raises(BadArgument, match=r"images: expected uint8 \(B, H, W, 3\)"):
        agent.image_to_video(["a"], [1], PICTURES[:1].float())
    with pytest.raises(BadArgument, match="2 prompts, 1 seeds"):
        agent.image_to_video(PROMPTS, [1], PICTURES)
    with pytest.raises(BadArgument, match="num_inference_steps: expected 1 to 1000, got 0"):
        agent.image_to_video(["a"], [1], PICTURES[:1], num_inference_steps=0)
    with pytest.raises(BadArgument, match="gradient_steps"):
        made(tiny_svd, gradient_steps=None).forward(z=None, prompt_keys=[""], seeds=[1], images=image)


def test_another_checkpoint_is_refused(tiny_svd: dict[str, Any], tmp_path: Path) -> None:
    source = Path(tiny_svd["model"])
    for part in source.iterdir():
        (tmp_path / part.name).symlink_to(part)
    (tmp_path / "scheduler").unlink()
    (tmp_path / "scheduler").mkdir()
    config = json.loads((source / "scheduler" / "scheduler_config.json").read_text()) | {"prediction_type": "epsilon"}
    (tmp_path / "scheduler" / "scheduler_config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="prediction_type: expected v_prediction, got epsilon"):
        made(tiny_svd, model=str(tmp_path))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"num_frames": 1}, "num_frames"),
        ({"height": 36}, "height"),
        ({"num_inference_steps": 1001}, "num_inference_steps"),
        ({"gradient_steps": 3}, "gradient_steps 3 must be between 1 and num_inference_steps 2"),
        ({"modulation_start": "zeros"}, "modulation_start"),
        ({"negative_prompt": ""}, "negative_prompt: unknown key"),
    ],
)
def test_options_that_cannot_work_are_refused(tiny_svd: dict[str, Any], changes: dict[str, Any], named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        read_settings(SvdOptions, tiny_svd | changes, source="options")


def test_checking_options_imports_no_model_library() -> None:
    code = (
        "import sys; from mora_env_svd.svd.options import SvdOptions;"
        "SvdOptions(model='stabilityai/stable-video-diffusion-img2vid-xt', num_frames=25, height=576, width=1024)"
        ".components(); print(sorted({'torch', 'diffusers', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
