"""The agent's method table, called like by a server."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from mora_env_svd.pixels import to_frames
from mora_env_svd.seine.agent import SeineAgent
from mora_env_svd.seine.models import SeineUNet
from mora_env_svd.seine.options import SeineOptions
from mora_env_svd.seine.weights.weights_folder import load_unet, save_unet
from mora_environment.job_folder import shared_folders
from mora_runtime import RunDirectory, Session
from mora_runtime.errors import BadArgument, Cancelled, SettingsError
from mora_runtime.schema import read_settings
from torch import Tensor

PICTURES = torch.randint(0, 256, (2, 40, 24, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
PROMPTS, SEEDS = ["a cat", "a dog walks"], [3, 4]


def made(tiny: dict[str, Any], **changes: Any) -> SeineAgent:
    return SeineAgent.from_options(SeineOptions(**(tiny | changes)), torch.device("cpu"))


@pytest.fixture(scope="module")
def agent(tiny: dict[str, Any]) -> SeineAgent:
    return made(tiny, num_inference_steps=3, decoded_at_once=2)


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    sent: list[dict[str, Any]] = []
    monkeypatch.setattr("mora_env_svd.clip_generator.report_part", lambda **values: sent.append(values))
    return sent


def clip(seed: int = 0, num_frames: int = 6) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (num_frames, 32, 32, 3), dtype=torch.uint8, generator=generator)


def test_frames_of_forward_are_those_of_generate(agent: SeineAgent) -> None:
    keys = agent.encode(prompts=PROMPTS)["keys"]
    z = agent.modulation_rows(text="[Mod]")["rows"].requires_grad_()
    images = (torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(3)) * 2.0 - 1.0).requires_grad_()
    frames = agent.forward(z=z, prompt_keys=keys, seeds=SEEDS, images=images)["frames"]
    clips = agent.generate(z=z, prompt_keys=keys, seeds=SEEDS, images=images)["outputs"]
    distance = (torch.stack([to_frames(each.detach()) for each in frames]).int() - clips.int()).abs()
    assert distance.max() <= 1
    assert (distance > 0).float().mean() < 0.001  # attention has another kernel where a gradient is wanted
    frames.square().mean().backward()
    assert z.grad.abs().max() > 0
    assert images.grad.abs().max() > 0
    with torch.no_grad():
        again = agent.forward(z=z, prompt_keys=keys, seeds=SEEDS, images=images)["frames"]
    assert torch.equal(torch.stack([to_frames(each) for each in again]), clips)


def test_forward_with_targets_returns_the_loss_too(agent: SeineAgent) -> None:
    keys = agent.encode(prompts=PROMPTS)["keys"]
    targets = [agent.store_target(pixels=clip(seed))["key"] for seed in (1, 2)]
    assert agent.has_targets(keys=[*targets, "0" * 64])["found"] == [True, True, False]
    images = torch.zeros(2, 3, 32, 32)
    with torch.no_grad():
        values = agent.forward(z=None, prompt_keys=keys, seeds=SEEDS, images=images, target_keys=targets)
        loss = agent.loss(z=None, prompt_keys=keys, images=images, target_keys=targets, seeds=SEEDS)["loss"]
    assert torch.equal(values["loss"], loss)


def test_only_the_unet_trains(agent: SeineAgent) -> None:
    assert isinstance(agent.module(), SeineUNet)
    assert all(parameter.requires_grad for parameter in agent.module().parameters())
    assert not any(parameter.requires_grad for parameter in agent._coder._vae.parameters())
    assert not agent.module().training


def test_saved_weights_load_with_their_config(agent: SeineAgent, tmp_path: Path) -> None:
    save_unet(agent.module(), tmp_path)
    assert json.loads((tmp_path / "config.json").read_text()) == agent.model_config()
    assert load_unet(tmp_path).config == agent.module().config


def test_a_clip_has_the_same_bytes_alone_and_in_a_batch(agent: SeineAgent) -> None:
    both = agent.image_to_video(PROMPTS, SEEDS, PICTURES)["outputs"]
    assert both.shape == (2, 6, 32, 32, 3)
    for index in range(2):
        alone = agent.image_to_video([PROMPTS[index]], [SEEDS[index]], PICTURES[index : index + 1])["outputs"]
        assert torch.equal(alone[0], both[index])
    assert not torch.equal(both[0], both[1])


def test_each_capability_shows_its_given_frames_to_the_model(agent: SeineAgent) -> None:
    seen: list[Tensor] = []
    handle = agent.module().register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0][0, 4, :, 0, 0]))
    try:
        agent.image_to_video(["a"], [1], PICTURES[:1])
        agent.connect_videos(["a"], [1], PICTURES[:1], PICTURES[1:])
        extended = agent.extend_video(["a"], [1], clip(1, 2)[None])["outputs"]
    finally:
        handle.remove()
    assert extended.shape == (1, 4, 32, 32, 3)
    masks = [mask.tolist() for mask in seen[::3]]
    assert masks == [[0, 1, 1, 1, 1, 1], [0, 1, 1, 1, 1, 0], [0, 0, 1, 1, 1, 1]]


def test_each_given_frame_changes_the_clip(agent: SeineAgent) -> None:
    first = agent.connect_videos(["a"], [1], PICTURES[:1], PICTURES[1:])["outputs"]
    for ends in ((PICTURES[1:], PICTURES[1:]), (PICTURES[:1], PICTURES[:1])):
        assert not torch.equal(agent.connect_videos(["a"], [1], *ends)["outputs"], first)
    video, other = clip(1, 3)[None], clip(1, 3)[None]
    other[:, 1] = 255 - other[:, 1]
    extended = [agent.extend_video(["a"], [1], each)["outputs"] for each in (video, other)]
    assert not torch.equal(*extended)


def test_overrides_of_a_request_count(agent: SeineAgent) -> None:
    default = agent.image_to_video(["a"], [1], PICTURES[:1])["outputs"]
    for changes in ({"num_inference_steps": 4}, {"guidance_scale": 5.0}, {"negative_prompt": "dark"},
                    {"z": torch.ones(1, 32)}):  # fmt: skip
        assert not torch.equal(agent.image_to_video(["a"], [1], PICTURES[:1], **changes)["outputs"], default)
    with pytest.raises(BadArgument, match="num_steps: expected 2 to 1000, got 1"):
        agent.image_to_video(["a"], [1], PICTURES[:1], num_inference_steps=1)


def test_the_addition_is_glued_to_prompts_without_a_space(tiny: dict[str, Any], agent: SeineAgent) -> None:
    added = made(tiny, additional_prompt="smooth transition.", num_inference_steps=3)
    glued = agent.image_to_video(["a catsmooth transition."], [1], PICTURES[:1])["outputs"]
    assert torch.equal(added.image_to_video(["a cat"], [1], PICTURES[:1])["outputs"], glued)


def test_finished_clips_are_in_shared_memory(agent: SeineAgent, tmp_path: Path) -> None:
    key = agent.encode(prompts=["a cat"])["keys"][0]
    with Session.open(RunDirectory.create(tmp_path / "run"), "video.0") as session:
        for outputs in (
            agent.generate(z=None, prompt_keys=[key], seeds=[1], images=torch.zeros(1, 3, 32, 32))["outputs"],
            agent.extend_video(["a cat"], [1], clip(1, 2)[None])["outputs"],
        ):
            slot, _ = session.store.arena.slot_of(outputs)
            assert slot.segment.address + slot.offset == outputs.data_ptr()  # handed over without a copy
        del outputs, slot


@pytest.mark.parametrize("given", [0, 1, 3])
def test_parts_are_the_first_frames_of_the_result(agent: SeineAgent, parts: list[dict[str, Any]], given: int) -> None:
    if given:
        outputs = agent.extend_video(["a cat"], [3], clip(1, given)[None])["outputs"]
    else:
        outputs = agent.image_to_video(["a cat"], [3], PICTURES[:1])["outputs"]
    assert parts[0]["start"] == 0
    end = 0
    for part in parts:
        assert (part["sample"], part["start"]) == (0, end)
        end += len(part["outputs"])
        assert torch.equal(part["outputs"], outputs[0, part["start"] : end])
    assert 0 < end < outputs.shape[1]


def test_progress_counts_the_model_calls_of_all_clips(agent: SeineAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[tuple[int, int]] = []
    monkeypatch.setattr("mora_env_svd.clip_generator.report_step", lambda *step: steps.append(step))
    agent.image_to_video(PROMPTS, SEEDS, PICTURES)
    assert [step for step, _ in steps] == sorted(step for step, _ in steps)
    assert {step for step, _ in steps} == set(range(7))
    assert {total for _, total in steps} == {6}


@pytest.mark.parametrize("moment", ["sampling", "decoding"])
def test_a_cancelled_clip_ends_there_and_the_next_keeps_its_bytes(
    agent: SeineAgent, monkeypatch: pytest.MonkeyPatch, parts: list[dict[str, Any]], moment: str
) -> None:
    alone = agent.image_to_video(PROMPTS[1:], SEEDS[1:], PICTURES[1:])["outputs"]
    parts.clear()
    steps: list[int] = []
    monkeypatch.setattr("mora_env_svd.clip_generator.report_step", lambda step, _: steps.append(step))

    def cancelled() -> frozenset[int]:
        is_time = steps[-1] == 2 if moment == "sampling" else bool(parts)
        return frozenset({0}) if is_time else frozenset()

    monkeypatch.setattr("mora_env_svd.clip_generator.cancelled_samples", cancelled)
    outputs = agent.image_to_video(PROMPTS, SEEDS, PICTURES)["outputs"]
    assert not outputs[0].any()
    assert torch.equal(outputs[1], alone[0])
    assert len([part for part in parts if part["sample"] == 0]) == (moment == "decoding")


@pytest.mark.parametrize("num_reports", [1, 2, 4, 6])
def test_a_cancelled_call_ends_at_its_next_report(
    agent: SeineAgent, monkeypatch: pytest.MonkeyPatch, num_reports: int
) -> None:
    reports: list[int] = []

    def report(step: int, num_steps: int) -> None:
        reports.append(step)
        if len(reports) == num_reports:
            raise Cancelled("the caller cancelled this call")

    monkeypatch.setattr("mora_env_svd.clip_generator.report_step", report)
    with pytest.raises(Cancelled):
        agent.image_to_video(PROMPTS, SEEDS, PICTURES)
    assert len(reports) == num_reports


def test_bad_arguments_are_refused_as_the_callers_error(agent: SeineAgent) -> None:
    key = agent.encode(prompts=["a cat"])["keys"][0]
    target = agent.store_target(pixels=clip())["key"]
    image = torch.zeros(1, 3, 32, 32)
    good = {"z": None, "prompt_keys": [key], "images": image, "target_keys": [target], "seeds": [1]}
    for changes, named in (
        ({"prompt_keys": ["0" * 64]}, "prompt key"),
        ({"target_keys": ["0" * 64]}, "target key"),
        ({"seeds": [1, 2]}, "batch"),
        ({"z": torch.zeros(2, 31)}, "z: expected"),
    ):
        with pytest.raises(BadArgument, match=named):
            agent.loss(**(good | changes))
    for pixels in (clip(num_frames=5), clip().float(), clip()[:, :16]):
        with pytest.raises(BadArgument, match="pixels: expected uint8"):
            agent.store_target(pixels=pixels)
    with pytest.raises(BadArgument, match="videos: expected 1 to 5 given frames, got 6"):
        agent.extend_video(["a"], [1], clip()[None])
    with pytest.raises(BadArgument, match=r"images: expected uint8 \(B, H, W, 3\)"):
        agent.image_to_video(["a"], [1], PICTURES[:1].float())
    with pytest.raises(BadArgument, match="2 prompts, 1 seeds"):
        agent.image_to_video(PROMPTS, [1], PICTURES)
    with pytest.raises(BadArgument, match="at most 10000 characters"):
        agent.image_to_video(["a" * 10_001], [1], PICTURES[:1])
    with pytest.raises(BadArgument, match="expected as many seeds and images as prompts"):
        agent.generate(z=None, prompt_keys=[key], seeds=[1, 2], images=image)


def test_between_trainings_nothing_global_changes_and_nothing_is_loaded_again(tiny: dict[str, Any]) -> None:
    agent = made(tiny)
    before = torch.get_rng_state()
    first = [agent.modulation_rows(text="[Mod]", new_token=new)["rows"] for new in (False, True)]
    keys = agent.encode(prompts=PROMPTS)["keys"]
    assert agent.unload_text_encoder() == {"unloaded": True}
    agent.generate(z=first[0], prompt_keys=keys, seeds=SEEDS, images=torch.zeros(2, 3, 32, 32))
    assert agent.encode(prompts=PROMPTS)["keys"] == keys
    again = [agent.modulation_rows(text="[Mod]", new_token=new)["rows"] for new in (False, True)]
    assert all(torch.equal(*pair) for pair in zip(first, again, strict=True))
    assert first[1].shape == (1, 32)
    assert not agent._encoder.loaded
    assert torch.equal(torch.get_rng_state(), before)


def test_servers_of_one_job_share_texts_and_targets(tiny: dict[str, Any], tmp_path: Path) -> None:
    with shared_folders(tmp_path):
        first, second = made(tiny), made(tiny)
    keys = first.encode(prompts=PROMPTS)["keys"]
    rows = [first.modulation_rows(text="[Mod]", new_token=new)["rows"] for new in (False, True)]
    target = first.store_target(pixels=clip())["key"]
    assert second.encode(prompts=PROMPTS)["keys"] == keys
    found = [second.modulation_rows(text="[Mod]", new_token=new)["rows"] for new in (False, True)]
    assert all(torch.equal(*pair) for pair in zip(rows, found, strict=True))
    assert second.has_targets(keys=[target])["found"] == [True]
    assert not second._encoder.loaded
    call = {"z": None, "prompt_keys": keys, "seeds": SEEDS, "target_keys": [target] * 2}
    losses = [agent.loss(**call, images=torch.zeros(2, 3, 32, 32))["loss"] for agent in (first, second)]
    assert torch.equal(*losses)


def test_half_precision_trains_and_samples(tiny: dict[str, Any], agent: SeineAgent) -> None:
    half = made(tiny, dtype="bfloat16", vae_dtype="bfloat16")
    losses = []
    for each in (agent, half):
        keys = each.encode(prompts=PROMPTS[:1])["keys"]
        target = each.store_target(pixels=clip())["key"]
        images = torch.zeros(1, 3, 32, 32, requires_grad=True)
        loss = each.loss(z=None, prompt_keys=keys, images=images, target_keys=[target], seeds=[1])["loss"]
        loss.backward()
        assert images.grad.abs().max() > 0
        losses.append(loss.item())
    assert losses[1] == pytest.approx(losses[0], rel=0.05)
    frames = half.forward(z=None, prompt_keys=keys, seeds=[1], images=images)["frames"]
    assert frames.dtype == torch.float32
    assert frames.isfinite().all()


def test_without_the_option_there_is_no_forward(tiny: dict[str, Any]) -> None:
    agent = made(tiny, gradient_steps=None)
    key = agent.encode(prompts=["a cat"])["keys"][0]
    with pytest.raises(BadArgument, match="gradient_steps"):
        agent.forward(z=None, prompt_keys=[key], seeds=[1], images=torch.zeros(1, 3, 32, 32))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"num_frames": 1}, "num_frames"),
        ({"height": 36}, "height"),
        ({"num_inference_steps": 1}, "num_inference_steps"),
        ({"num_inference_steps": 1001}, "num_inference_steps"),
        ({"gradient_steps": 3}, "gradient_steps 3 must be between 1 and num_inference_steps 2"),
        ({"training_masks": ["last1"]}, "expected `firstK`"),
        ({"training_masks": ["all"]}, "expected the first frame to be given"),
        ({"training_masks": ["onelast3"]}, "at least one to be generated"),
        ({"training_masks": []}, "training_masks"),
        ({"sample_methd": "ddim"}, "did you mean `sample_method`"),
    ],
)
def test_options_are_checked(tiny: dict[str, Any], changes: dict[str, Any], named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        read_settings(SeineOptions, tiny | changes, source="test")


def test_published_names_are_known_before_they_are_downloaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    options = SeineOptions(model="Vchitect/SEINE", base="CompVis/stable-diffusion-v1-4", height=512, width=512)
    counts = {component.name: component.num_parameters for component in options.components()}
    assert counts == {"unet": 909_138_500, "vae": 83_653_863, "text_encoder": 123_060_480}
    assert [(source.option, source.subfolder) for source in options.weights_sources()] == [
        ("model", ""), ("base", "vae"), ("base", "text_encoder"), ("base", "tokenizer"),
    ]  # fmt: skip
    with pytest.raises(SettingsError, match="did you mean the Hub id `Vchitect/SEINE`"):
        SeineOptions(model="Vchitect/SEIN", base=options.base, height=512, width=512).components()


def test_options_and_sizes_are_read_without_model_libraries(tiny: dict[str, Any]) -> None:
    request = {"kind": "seine", "source": "agents.video.options", "options": tiny}
    script = (
        "import runpy, sys\n"
        "for name in ('torch', 'diffusers', 'transformers'):\n"
        "    sys.modules[name] = None\n"
        "sys.argv[1:] = ['options']\n"
        "runpy.run_module('mora_env_svd', run_name='__main__', alter_sys=True)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], input=json.dumps(request), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    components = json.loads(done.stdout)["components"]
    assert [component["name"] for component in components] == ["unet", "vae", "text_encoder"]
    assert all(component["num_parameters"] > 0 for component in components)


def test_the_same_seed_makes_the_same_tiny_models(tiny_folder: Path, tmp_path: Path) -> None:
    from mora_env_svd.seine.tiny import make_tiny

    def contents(folder: Path) -> dict[str, bytes]:
        paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        return {str(path.relative_to(folder)): path.read_bytes() for path in paths}

    before = torch.get_rng_state()
    make_tiny(tmp_path)
    assert contents(tmp_path) == contents(tiny_folder)
    assert torch.equal(torch.get_rng_state(), before)
