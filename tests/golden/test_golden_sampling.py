"""Schedulers and whole sampling runs equal upstream's with the same noise."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import reference
import torch
from mora_env_opensora.conditioning import LATENT_SCALE, ClipSize
from mora_env_opensora.models import CausalVAEModel, OpenSoraInpaint, OpenSoraT2V
from mora_env_opensora.objective import TextBatch
from mora_env_opensora.pipelines import GivenFramesPipeline, LatentSampler, SamplingSettings
from mora_env_opensora.pipelines.pixels import decode_frames
from mora_env_opensora.pipelines.schedulers import make_scheduler
from reference import Case, Reference, assert_equal_to

NAMES = {
    "DDPM": "ddpm",
    "DDIM": "ddim",
    "PNDM": "pndm",
    "EulerAncestralDiscrete": "euler_ancestral",
    "EulerDiscrete": "euler",
    "DPMSolverMultistep": "dpm_solver",
}
MODULES = {
    "ddpm": "scheduling_ddpm",
    "euler_ancestral": "scheduling_euler_ancestral_discrete",
    "euler": "scheduling_euler_discrete",
}


@pytest.fixture
def replay_noise(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes a scheduler use the recorded step noise, in order, instead of its own."""

    def replay(scheduler: str, case: Case) -> None:
        noises = [case.inputs[f"step_noise.{i}"] for i in range(case.args["n_step_noise"])]
        if not noises:
            return
        draws: Iterator[torch.Tensor] = iter(noises)
        monkeypatch.setattr(f"diffusers.schedulers.{MODULES[scheduler]}.randn_tensor", lambda *_, **__: next(draws))

    return replay


@pytest.mark.parametrize("name", reference.case_names("schedulers"))
def test_scheduler_sequence(name: str, replay_noise: Any) -> None:
    case = reference.read("schedulers").case(name)
    kind = NAMES[case.args["scheduler"]]
    replay_noise(kind, case)
    scheduler = make_scheduler(kind)
    scheduler.set_timesteps(case.args["num_inference_steps"])
    assert_equal_to(case.outputs["timesteps"], torch.as_tensor(scheduler.timesteps), "timesteps")
    x = case.inputs["init_noise"] * scheduler.init_noise_sigma
    for i, timestep in enumerate(scheduler.timesteps):
        scaled = scheduler.scale_model_input(x, timestep)
        assert_equal_to(case.outputs[f"scaled_input.{i}"], scaled, f"scaled input {i}")
        epsilon = case.inputs["eps_a"] * 0.1 * (1 + i) + case.inputs["eps_b"] * scaled
        x = scheduler.step(epsilon, timestep, x).prev_sample
        assert_equal_to(case.outputs[f"x.{i}"], x, f"x {i}")


def _load(golden: Reference, kind: type[OpenSoraT2V]) -> tuple[OpenSoraT2V, CausalVAEModel]:
    model = kind.from_config(golden.meta["config"])
    model.load_state_dict(golden.weights(), strict=True)
    vae = CausalVAEModel.from_config(golden.meta["vae_config"])
    vae.load_state_dict(golden.weights("vae_weights"), strict=True)
    return model, vae


def _check_run(case: Case, model: OpenSoraT2V, vae: CausalVAEModel, condition: torch.Tensor | None) -> None:
    args, inputs = case.args, case.inputs
    settings = SamplingSettings(NAMES[args["scheduler"]], args["num_inference_steps"], args["guidance_scale"])
    text = TextBatch(
        torch.cat([inputs["negative_prompt_embeds"], inputs["prompt_embeds"]])[:, None],
        torch.cat([inputs["negative_prompt_attention_mask"], inputs["prompt_attention_mask"]])[:, None],
    )
    steps: list[torch.Tensor] = []
    latents = LatentSampler(model, settings).run(
        text, inputs["init_noise"], torch.Generator(), condition=condition, on_step=lambda _, x: steps.append(x)
    )
    recorded = [key for key in case.outputs if key.startswith("latents_step.")]
    steps = steps[-len(recorded) :]  # PNDM's Runge-Kutta calls before its first whole step were not recorded
    for key in recorded:
        assert_equal_to(case.outputs[key], steps[int(key.split(".")[1])], key)
    assert_equal_to(case.outputs["latents"], latents, "latents")
    with torch.no_grad():
        video = vae.decode(latents / LATENT_SCALE).transpose(1, 2)  # recorded as (B, F, 3, H, W)
    assert_equal_to(case.outputs["video_float"], video, "video")
    frames = decode_frames(vae, latents).int()
    difference = (frames - case.outputs["video_uint8"][0].int()).abs().max().item()
    assert difference <= 1, f"frames differ by {difference} of 255"


@pytest.mark.parametrize("name", reference.case_names("sample_t2v"))
def test_text_to_video_run(name: str, replay_noise: Any) -> None:
    golden = reference.read("sample_t2v")
    case = golden.case(name)
    replay_noise(NAMES[case.args["scheduler"]], case)
    _check_run(case, *_load(golden, OpenSoraT2V), condition=None)


@pytest.mark.parametrize("name", reference.case_names("sample_i2v"))
def test_image_to_video_run(name: str) -> None:
    golden = reference.read("sample_i2v")
    case = golden.case(name)
    model, vae = _load(golden, OpenSoraInpaint)
    size = ClipSize(case.args["num_frames"], case.args["height"], case.args["width"])
    images = [case.inputs[f"cond_image.{i}"] for i in range(case.args["n_cond"])]
    with torch.no_grad():
        pipeline = GivenFramesPipeline(model, vae, size)
        condition = pipeline.condition(images, case.args["indices"], case.inputs["vae_eps"])
    _check_run(case, model, vae, condition)
