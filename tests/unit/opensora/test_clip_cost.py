"""What the plan counts for the video agent, at the published sizes and against a real call on the CPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mora_env_opensora.agent import OpenSoraAgent
from mora_env_opensora.cost.clip_cost import clip_cost
from mora_env_opensora.options import PUBLISHED, OpenSoraOptions
from mora_env_opensora.sized_models import sized_models
from mora_env_opensora.tiny import tiny_image_to_video
from mora_environment.cost import AgentCost, CostRequest
from mora_environment.cost_meter import measured_call
from mora_training.training_settings import TrainableSettings

T = 1e12
GB = 1e9


@pytest.fixture(scope="module")
def published() -> AgentCost:
    """The paper's video agent: 93 frames of 480 x 640, bfloat16, gradient checkpointing, tiles."""
    options = OpenSoraOptions(
        model="LanguageBind/Open-Sora-Plan-v1.2.0/93x480p_i2v", vae="LanguageBind/Open-Sora-Plan-v1.2.0/vae",
        text_encoder="google/mt5-xxl", dtype="bfloat16", num_frames=93, height=480, width=640,
        gradient_checkpointing=True, vae_tiling=True,
    )  # fmt: skip
    return clip_cost(options, CostRequest(has_loss=True))


def test_operations_of_the_published_model_are_those_of_the_audit(published: AgentCost) -> None:
    step, counted = published.step, PUBLISHED["LanguageBind/Open-Sora-Plan-v1.2.0/93x480p_i2v"]["transformer"]
    assert published.num_trained == counted
    assert (step.forward.matmul + step.forward.attention) / T == pytest.approx(384.6, rel=0.02)
    both = sum(work.matmul + work.attention for work in (step.forward, step.backward))
    assert both / T == pytest.approx(1660, rel=0.02), "with the recomputation of flash attention"
    assert published.prepare.forward.convolution_float32 / T == pytest.approx(167, rel=0.02)


def test_the_autoencoder_runs_only_the_chunk_that_holds_the_given_frame(published: AgentCost) -> None:
    step = published.step
    assert (step.forward.convolution_float32 + step.backward.convolution_float32) / T <= 180, "574 for the whole clip"


def test_a_sample_makes_109_model_calls_with_guidance(published: AgentCost) -> None:
    sample = published.sample.forward
    assert (sample.matmul + sample.attention) / T == pytest.approx(109 * 2 * 384.6, rel=0.02)


def tiny(tmp_path: Path, **others: object) -> OpenSoraOptions:
    return OpenSoraOptions(**{**tiny_image_to_video(tmp_path), **others})  # type: ignore[arg-type]


@pytest.mark.parametrize("checkpointing", [False, True])
def test_memory_and_operations_are_those_of_the_real_call(tmp_path: Path, checkpointing: bool) -> None:
    options = tiny(tmp_path, gradient_checkpointing=checkpointing)
    planned = clip_cost(options, CostRequest(has_loss=True, num_rows=4)).step
    agent = OpenSoraAgent.from_options(options, torch.device("cpu"))
    keys = agent.encode([" ".join(["word"] * options.max_length)])["keys"]
    clip = torch.zeros(options.num_frames, options.height, options.width, 3, dtype=torch.uint8)
    target = agent.store_target(clip)["key"]
    z = torch.zeros(4, agent.module().config.caption_channels, requires_grad=True)
    images = torch.zeros(1, 3, options.height, options.width, requires_grad=True)

    def loss() -> torch.Tensor:
        value: torch.Tensor = agent.loss(z, keys, images, [target], [0])["loss"]
        return value

    loss()  # the first call also fills what later ones reuse
    real = measured_call(loss, modules=[agent.module()], with_backward=True)
    for which in ("graph_nbytes", "forward_nbytes", "backward_nbytes"):
        assert getattr(planned, which) == pytest.approx(getattr(real, which), rel=0.15), which
    for name in ("matmul_float32", "convolution_float32"):
        assert getattr(planned.backward, name) == pytest.approx(getattr(real.backward, name), rel=0.05), name


def test_adapters_have_few_trained_parameters(tmp_path: Path) -> None:
    request = CostRequest(has_loss=True, trainable=TrainableSettings(scope="lora", lora_rank=2))
    cost = clip_cost(tiny(tmp_path), request)
    assert 0 < cost.num_trained < clip_cost(tiny(tmp_path), CostRequest(has_loss=True)).num_trained / 4


def test_a_frozen_agent_passes_the_gradient_on_and_keeps_none_of_its_own(tmp_path: Path) -> None:
    frozen = TrainableSettings(scope="none")
    passed = clip_cost(tiny(tmp_path), CostRequest(has_loss=True, trainable=frozen))
    assert passed.num_trained == 0
    assert passed.step.backward.matmul_float32 > 0
    first = clip_cost(tiny(tmp_path), CostRequest(has_loss=True, trainable=frozen, passes_gradient=False))
    assert first.step.backward.num_operations == 0


def test_a_transform_pays_for_the_model_calls_that_have_a_gradient(tmp_path: Path) -> None:
    one, two = (
        clip_cost(tiny(tmp_path, gradient_steps=steps, num_inference_steps=4), CostRequest()).step for steps in (1, 2)
    )
    assert two.backward.matmul_float32 > one.backward.matmul_float32


def test_training_from_text_to_video_weights_is_planned_as_the_model_that_it_makes() -> None:
    release = "LanguageBind/Open-Sora-Plan-v1.2.0"
    options = OpenSoraOptions(
        model=f"{release}/93x480p", vae=f"{release}/vae", text_encoder="google/mt5-xxl", num_frames=9, height=64,
        width=64, from_text_to_video=True,
    )  # fmt: skip
    model, _ = sized_models(options, torch.device("meta"))
    assert (
        sum(parameter.numel() for parameter in model.parameters()) == PUBLISHED[f"{release}/93x480p_i2v"]["transformer"]
    )
