"""The method tables of Wan's agents, called like by a server."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import WanTransformer3DModel
from mora_env_svd.__main__ import KINDS
from mora_env_svd.errors import ConfigError
from mora_env_svd.pixels import to_frames
from mora_env_svd.wan.agent import WanAgent, WanConnectAgent, wan_agent
from mora_env_svd.wan.options import WanOptions
from mora_env_svd.wan.tiny import make_tiny, tiny_wan
from mora_environment.conformance.suite import check_kind
from mora_environment.job_folder import shared_folders
from mora_runtime.errors import BadArgument, Cancelled, SettingsError
from mora_runtime.rpc.agent import methods_of
from mora_runtime.schema import read_settings
from torch import Tensor

CPU = torch.device("cpu")
PICTURES = torch.randint(0, 256, (2, 40, 24, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
PROMPTS, SEEDS = ["a cat", "a dog moves left"], [3, 4]
SMALL = {
    "num_frames": 9, "height": 32, "width": 32, "max_sequence_length": 16, "num_inference_steps": 2,
    "guidance_scale": 2.0, "gradient_steps": "all",
}  # fmt: skip


def options_in(folder: Path, layout: str = "i2v", **changes: Any) -> WanOptions:
    return WanOptions(**{"model": str(folder / layout), **SMALL} | changes)


@pytest.fixture(scope="module")
def agent(tiny_wan_folder: Path) -> WanAgent:
    return wan_agent(options_in(tiny_wan_folder), CPU)


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    sent: list[dict[str, Any]] = []
    monkeypatch.setattr("mora_env_svd.clip_generator.report_part", lambda **values: sent.append(values))
    return sent


def clip(seed: int = 0, num_frames: int = 9) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (num_frames, 32, 32, 3), dtype=torch.uint8, generator=generator)


@pytest.mark.long
def test_the_layout_of_wan_2_2_conforms_too() -> None:
    """The suite checks a kind with its tiny models, which are those of Wan 2.1."""
    kind = replace(KINDS["wan"], tiny=partial(tiny_wan, layout="ti2v"))
    outcomes = list(check_kind({"wan": kind}, "mora_env_svd", "wan", with_server=False))
    assert [outcome.line("wan") for outcome in outcomes if not outcome.ok] == []
    assert sum("gradients equal differences" in outcome.check for outcome in outcomes) == 2


@pytest.mark.parametrize("layout", ["i2v", "ti2v"])
def test_frames_of_forward_are_those_of_generate(tiny_wan_folder: Path, layout: str) -> None:
    agent = wan_agent(options_in(tiny_wan_folder, layout), CPU)
    keys = agent.encode(prompts=PROMPTS)["keys"]
    z = agent.modulation_rows(text="[Mod]")["rows"].requires_grad_()
    images = (torch.rand(2, 3, 24, 40, generator=torch.Generator().manual_seed(3)) * 2.0 - 1.0).requires_grad_()
    call = {"z": z, "prompt_keys": keys, "seeds": SEEDS, "images": images}
    frames, clips = agent.forward(**call)["frames"], agent.generate(**call)["outputs"]
    distance = (torch.stack([to_frames(each.detach()) for each in frames]).int() - clips.int()).abs()
    assert distance.max() <= 1  # attention has another kernel where a gradient is wanted
    frames.square().mean().backward()
    assert z.grad.abs().max() > 0
    assert images.grad.abs().max() > 0
    with torch.no_grad():
        again = agent.forward(**call)["frames"]
    assert torch.equal(torch.stack([to_frames(each) for each in again]), clips)


def test_the_gradient_goes_through_the_last_steps_only(tiny_wan_folder: Path, agent: WanAgent) -> None:
    """With fewer steps in the graph the frames are the same, and the gradient in z is another one."""
    key = agent.encode(prompts=["a cat"])["keys"][0]
    frames, gradients = [], []
    for steps in (1, "all"):
        each = wan_agent(options_in(tiny_wan_folder, gradient_steps=steps), CPU)
        each.encode(prompts=["a cat"])
        z = torch.ones(1, 32, requires_grad=True)
        made = each.forward(z=z, prompt_keys=[key], seeds=[1], images=torch.zeros(1, 3, 32, 32))["frames"]
        made.square().mean().backward()
        frames.append(made.detach())
        gradients.append(z.grad)
    torch.testing.assert_close(*frames, rtol=0.0, atol=1e-5)
    assert all(gradient.abs().max() > 0 for gradient in gradients)
    assert (gradients[0] - gradients[1]).abs().max() > 0.01 * gradients[1].abs().max()


def test_forward_with_targets_returns_the_loss_too(agent: WanAgent) -> None:
    keys = agent.encode(prompts=PROMPTS)["keys"]
    targets = [agent.store_target(pixels=clip(seed))["key"] for seed in (1, 2)]
    assert agent.has_targets(keys=[*targets, "0" * 64])["found"] == [True, True, False]
    images = torch.zeros(2, 3, 32, 32)
    with torch.no_grad():
        values = agent.forward(z=None, prompt_keys=keys, seeds=SEEDS, images=images, target_keys=targets)
        loss = agent.loss(z=None, prompt_keys=keys, images=images, target_keys=targets, seeds=SEEDS)["loss"]
    assert torch.equal(values["loss"], loss)


def test_only_the_transformer_trains_and_its_folder_loads(
    tiny_wan_folder: Path, agent: WanAgent, tmp_path: Path
) -> None:
    assert isinstance(agent.module(), WanTransformer3DModel)
    assert all(parameter.requires_grad for parameter in agent.module().parameters())
    models = agent._models
    frozen = [models.coder._vae, models.conditioner.image_encoder._model]
    assert not any(parameter.requires_grad for model in frozen for parameter in model.parameters())
    agent.module().save_pretrained(tmp_path)
    stored = json.loads((tmp_path / "config.json").read_text())
    told = json.loads(json.dumps(agent.model_config()))
    assert {name: stored[name] for name in told} == told
    trained = wan_agent(options_in(tiny_wan_folder, transformer=str(tmp_path)), CPU)
    state = trained.module().state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in agent.module().state_dict().items())


def test_agents_have_the_capabilities_of_their_layout(tiny_wan_folder: Path) -> None:
    capabilities = {"image_to_video", "extend_video", "connect_videos"}
    of_first = {"image_to_video", "extend_video"}
    for layout, expected in (("i2v", of_first), ("flf2v", {"connect_videos"}), ("a14b", capabilities)):
        options = options_in(tiny_wan_folder, layout)
        agent = wan_agent(options, CPU)
        assert capabilities & set(methods_of(type(agent))) == expected
        assert (options.interface() is None) == (layout != "i2v")
        assert agent.describe()["size_multiple"] == 16
    assert options_in(tiny_wan_folder, "ti2v").layout().size_multiple == 32


def test_each_given_picture_changes_a_connecting_clip(tiny_wan_folder: Path) -> None:
    agent = wan_agent(options_in(tiny_wan_folder, "flf2v"), CPU)
    assert isinstance(agent, WanConnectAgent)
    first, last = PICTURES[:1], PICTURES[1:]
    made = agent.connect_videos(["a"], [1], first, last)["outputs"]
    assert made.shape == (1, 9, 32, 32, 3)
    for ends in ((last, last), (first, first)):
        assert not torch.equal(agent.connect_videos(["a"], [1], *ends)["outputs"], made)
    with pytest.raises(BadArgument, match="images_after: expected as many as images, 1, got 2"):
        agent.connect_videos(["a"], [1], first, PICTURES)


def test_two_transformers_share_the_steps(tiny_wan_folder: Path) -> None:
    agent = wan_agent(options_in(tiny_wan_folder, "a14b", num_inference_steps=3), CPU)
    denoiser, calls = agent._models.denoiser, []
    for name, model in (("high", denoiser.model), ("low", denoiser.at(torch.tensor(1.0)).model)):
        model.register_forward_pre_hook(
            lambda _, arguments, values, name=name: calls.append((name, float(values["timestep"][0]))), with_kwargs=True
        )
    agent.image_to_video(["a"], [1], PICTURES[:1], guidance_scale=1.0)
    assert [name for name, _ in calls] == ["high", "low", "low"]
    assert calls[0][1] >= 900.0 > calls[1][1] > calls[2][1]
    assert [component.name for component in agent._options.components()][3:] == ["transformer_2"]


def test_a_clip_has_the_same_bytes_alone_and_in_a_batch(agent: WanAgent) -> None:
    both = agent.image_to_video(PROMPTS, SEEDS, PICTURES)["outputs"]
    assert both.shape == (2, 9, 32, 32, 3)
    for index in range(2):
        alone = agent.image_to_video([PROMPTS[index]], [SEEDS[index]], PICTURES[index : index + 1])["outputs"]
        assert torch.equal(alone[0], both[index])
    assert not torch.equal(both[0], both[1])


def test_a_video_is_continued_from_its_last_frame(agent: WanAgent, parts: list[dict[str, Any]]) -> None:
    video = clip(1, 3)
    whole = agent.image_to_video(["a cat"], [3], video[-1:])["outputs"]
    parts.clear()
    extended = agent.extend_video(["a cat"], [3], video[None])["outputs"]
    assert torch.equal(extended, whole[:, 1:])
    assert [(part["start"], len(part["outputs"])) for part in parts] == [(0, 4)]  # of nine frames, the first left out
    assert torch.equal(parts[0]["outputs"], extended[0, :4])


def test_parts_are_the_first_frames_of_the_result(agent: WanAgent, parts: list[dict[str, Any]]) -> None:
    outputs = agent.image_to_video(["a cat"], [3], PICTURES[:1])["outputs"]
    assert [(part["sample"], part["start"], len(part["outputs"])) for part in parts] == [(0, 0, 1), (0, 1, 4)]
    assert torch.equal(torch.cat([part["outputs"] for part in parts]), outputs[0, :5])


def test_overrides_of_a_request_count(agent: WanAgent) -> None:
    default = agent.image_to_video(["a"], [1], PICTURES[:1])["outputs"]
    for changes in ({"num_inference_steps": 3}, {"guidance_scale": 5.0}, {"negative_prompt": "dark"},
                    {"z": torch.ones(1, 32)}):  # fmt: skip
        assert not torch.equal(agent.image_to_video(["a"], [1], PICTURES[:1], **changes)["outputs"], default)


def test_progress_counts_the_steps_of_all_clips(agent: WanAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[tuple[int, int]] = []
    monkeypatch.setattr("mora_env_svd.clip_generator.report_step", lambda *step: steps.append(step))
    agent.image_to_video(PROMPTS, SEEDS, PICTURES)
    assert [step for step, _ in steps] == sorted(step for step, _ in steps)
    assert {step for step, _ in steps} == set(range(5))
    assert {total for _, total in steps} == {4}


@pytest.mark.parametrize("moment", ["sampling", "decoding"])
def test_a_cancelled_clip_ends_there_and_the_next_keeps_its_bytes(
    agent: WanAgent, monkeypatch: pytest.MonkeyPatch, parts: list[dict[str, Any]], moment: str
) -> None:
    alone = agent.image_to_video(PROMPTS[1:], SEEDS[1:], PICTURES[1:])["outputs"]
    parts.clear()
    steps: list[int] = []
    monkeypatch.setattr("mora_env_svd.clip_generator.report_step", lambda step, _: steps.append(step))

    def cancelled() -> frozenset[int]:
        is_time = steps[-1] == 1 if moment == "sampling" else bool(parts)
        return frozenset({0}) if is_time else frozenset()

    monkeypatch.setattr("mora_env_svd.clip_generator.cancelled_samples", cancelled)
    outputs = agent.image_to_video(PROMPTS, SEEDS, PICTURES)["outputs"]
    assert not outputs[0].any()
    assert torch.equal(outputs[1], alone[0])
    assert len([part for part in parts if part["sample"] == 0]) == (moment == "decoding")


def test_a_cancelled_call_ends_at_its_next_report(agent: WanAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is one at the start, before each picture and piece of the condition, after each step, and before frames."""
    num_reports = 0

    def report(step: int, num_steps: int) -> None:
        nonlocal num_reports
        num_reports += 1
        if num_reports == last:
            raise Cancelled("the caller cancelled this call")

    monkeypatch.setattr("mora_env_svd.clip_generator.report_step", report)
    for last in (1, 2, 5, 10):
        num_reports = 0
        with pytest.raises(Cancelled):
            agent.image_to_video(PROMPTS[:1], SEEDS[:1], PICTURES[:1])
        assert num_reports == last


def test_bad_arguments_are_refused_as_the_callers_error(agent: WanAgent) -> None:
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
    with pytest.raises(BadArgument, match="videos: expected at least 1 given frame"):
        agent.extend_video(["a"], [1], clip()[None, :0])
    with pytest.raises(BadArgument, match=r"images: expected uint8 \(B, H, W, 3\)"):
        agent.image_to_video(["a"], [1], PICTURES[:1].float())
    with pytest.raises(BadArgument, match="2 prompts, 1 seeds"):
        agent.image_to_video(PROMPTS, [1], PICTURES)
    with pytest.raises(BadArgument, match="expected as many seeds and images as prompts"):
        agent.generate(z=None, prompt_keys=[key], seeds=[1, 2], images=image)


def test_between_trainings_nothing_global_changes_and_nothing_is_loaded_again(tiny_wan_folder: Path) -> None:
    agent = wan_agent(options_in(tiny_wan_folder), CPU)
    before = torch.get_rng_state()
    first = [agent.modulation_rows(text="[Mod]", new_token=new)["rows"] for new in (False, True)]
    keys = agent.encode(prompts=PROMPTS)["keys"]
    assert agent.unload_text_encoder() == {"unloaded": True}
    agent.generate(z=first[0], prompt_keys=keys, seeds=SEEDS, images=torch.zeros(2, 3, 32, 32))
    assert agent.encode(prompts=PROMPTS)["keys"] == keys
    again = [agent.modulation_rows(text="[Mod]", new_token=new)["rows"] for new in (False, True)]
    assert all(torch.equal(*pair) for pair in zip(first, again, strict=True))
    assert first[1].shape == (1, 32)
    assert not agent._text.loaded
    assert torch.equal(torch.get_rng_state(), before)


def test_servers_of_one_job_share_texts_and_targets(tiny_wan_folder: Path, tmp_path: Path) -> None:
    with shared_folders(tmp_path):
        first, second = (wan_agent(options_in(tiny_wan_folder), CPU) for _ in range(2))
    keys = first.encode(prompts=PROMPTS)["keys"]
    target = first.store_target(pixels=clip())["key"]
    assert second.encode(prompts=PROMPTS)["keys"] == keys
    assert second.has_targets(keys=[target])["found"] == [True]
    assert not second._text.loaded
    call = {"z": None, "prompt_keys": keys, "seeds": SEEDS, "target_keys": [target] * 2}
    losses = [agent.loss(**call, images=torch.zeros(2, 3, 32, 32))["loss"] for agent in (first, second)]
    assert torch.equal(*losses)


@pytest.mark.parametrize("layout", ["i2v", "ti2v"])
def test_half_precision_trains_and_samples(tiny_wan_folder: Path, layout: str) -> None:
    losses = []
    for dtype in ("float32", "bfloat16"):
        agent = wan_agent(options_in(tiny_wan_folder, layout, dtype=dtype, vae_dtype=dtype), CPU)
        key, target = agent.encode(prompts=["a cat"])["keys"][0], agent.store_target(pixels=clip())["key"]
        images = torch.zeros(1, 3, 32, 32, requires_grad=True)
        call = {"z": None, "prompt_keys": [key], "seeds": [1], "images": images}
        losses.append(agent.loss(**call, target_keys=[target])["loss"])
        losses[-1].backward()
        assert images.grad.isfinite().all()
    assert all(loss.dtype == torch.float32 for loss in losses)
    torch.testing.assert_close(*losses, rtol=0.05, atol=0.0)
    frames = agent.forward(**call)["frames"]
    assert frames.dtype == torch.float32
    assert frames.isfinite().all()


def test_without_the_option_there_is_no_forward(tiny_wan_folder: Path) -> None:
    agent = wan_agent(options_in(tiny_wan_folder, gradient_steps=None), CPU)
    key = agent.encode(prompts=["a cat"])["keys"][0]
    with pytest.raises(BadArgument, match="gradient_steps"):
        agent.forward(z=None, prompt_keys=[key], seeds=[1], images=torch.zeros(1, 3, 32, 32))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"num_frames": 8}, r"num_frames: expected 4k \+ 1, at least 5, got 8"),
        ({"num_frames": 1}, "num_frames"),
        ({"height": 40}, "height"),
        ({"gradient_steps": 3}, "gradient_steps 3 must be between 1 and num_inference_steps 2"),
        ({"flow_shift": 0.0}, "flow_shift"),
        ({"flow_shft": 1.0}, "did you mean `flow_shift`"),
    ],
)
def test_options_are_checked(tiny_wan_folder: Path, changes: dict[str, Any], named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        read_settings(WanOptions, {"model": str(tiny_wan_folder / "i2v"), **SMALL} | changes, source="test")


def test_sizes_fit_the_layout(tiny_wan_folder: Path) -> None:
    content = {"model": str(tiny_wan_folder / "ti2v"), **SMALL, "width": 48}
    with pytest.raises(SettingsError, match="width: expected a multiple of 32 for this model, got 48"):
        read_settings(WanOptions, content, source="test")


@pytest.mark.parametrize(
    ("folder", "changes", "named"),
    [
        (".", {"expand_timesteps": True}, "got 36 input channels, an image encoder, expand_timesteps true"),
        ("transformer", {"in_channels": 16, "image_dim": None}, "got 16 input channels, no image encoder"),
        ("scheduler", {"prediction_type": "epsilon"}, "with flow_prediction"),
        ("scheduler", {"_class_name": "DDIMScheduler"}, "its scheduler is DDIMScheduler"),
    ],
)
def test_other_layouts_are_refused_by_name(
    tiny_wan_folder: Path, tmp_path: Path, folder: str, changes: dict[str, Any], named: str
) -> None:
    shutil.copytree(tiny_wan_folder / "i2v", tmp_path / "i2v")
    name = {".": "model_index.json", "scheduler": "scheduler_config.json"}.get(folder, "config.json")
    path = tmp_path / "i2v" / folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises((ConfigError, ValueError), match=named):
        wan_agent(options_in(tmp_path), CPU)


def test_options_and_sizes_are_read_without_model_libraries(tiny_wan_folder: Path) -> None:
    options = options_in(tiny_wan_folder).model_dump(mode="json")
    request = {"kind": "wan", "source": "agents.video.options", "options": options}
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
    assert [component["name"] for component in components] == ["transformer", "vae", "text_encoder", "image_encoder"]
    assert all(component["num_parameters"] > 0 for component in components)


def test_the_same_seed_makes_the_same_tiny_models(tiny_wan_folder: Path, tmp_path: Path) -> None:
    def contents(folder: Path) -> dict[str, bytes]:
        paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        return {str(path.relative_to(folder)): path.read_bytes() for path in paths}

    before = torch.get_rng_state()
    make_tiny(tmp_path / "again")
    assert contents(tmp_path / "again") == contents(tiny_wan_folder / "i2v")
    assert torch.equal(torch.get_rng_state(), before)
