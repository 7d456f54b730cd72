"""What the plan counts for the image agents, at the published sizes and against real calls on the CPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mora_env_sd3.agent import Sd3Agent
from mora_env_sd3.cost.picture_cost import picture_cost
from mora_env_sd3.image_to_image_agent import Sd3ImageToImageAgent
from mora_env_sd3.options import PUBLISHED, Sd3ImageToImageOptions, Sd3Options
from mora_env_sd3.tiny import tiny_image_to_image, tiny_text_to_image
from mora_environment.cost import CallCost, CostRequest
from mora_environment.cost_meter import measured_call
from mora_training.training_settings import TrainableSettings

T = 1e12
MODEL = "stabilityai/stable-diffusion-3-medium-diffusers"


def test_the_published_model_costs_what_the_audit_counted() -> None:
    options = Sd3Options(model=MODEL, dtype="bfloat16", height=480, width=640, gradient_checkpointing=True)
    cost = picture_cost(options, CostRequest())
    assert cost.num_trained == PUBLISHED[MODEL]["transformer"]
    forward = cost.step.forward
    assert (forward.matmul + forward.attention + forward.convolution) / T == pytest.approx(28 * 4.86 + 2.95, rel=0.02)
    assert cost.step.graph_nbytes / 2**30 == pytest.approx(0.29 + 3.6, rel=0.15), "block inputs, and the VAE's decoder"
    sample = cost.sample.forward
    assert (sample.matmul + sample.attention) / T == pytest.approx(28 * 4.86, rel=0.02)


def agree(planned: CallCost, real: CallCost) -> None:
    """Memory within 15 %: on the CPU, attention keeps other tensors than the kernels of a GPU."""
    for which in ("graph_nbytes", "forward_nbytes", "backward_nbytes"):
        assert getattr(planned, which) == pytest.approx(getattr(real, which), rel=0.15), which
    for part in ("forward", "backward"):
        for name in ("matmul_float32", "convolution_float32"):
            counted = getattr(getattr(planned, part), name)
            assert counted == pytest.approx(getattr(getattr(real, part), name), rel=0.02), (part, name)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_text_to_image_costs_what_the_real_call_does(tmp_path: Path, checkpointing: bool) -> None:
    options = Sd3Options(**{**tiny_text_to_image(tmp_path), "gradient_checkpointing": checkpointing})
    agent = Sd3Agent(options, torch.device("cpu"))
    keys = agent.encode(["a red circle"])["keys"]
    z = torch.zeros(4, agent.module().config.joint_attention_dim, requires_grad=True)

    def images() -> torch.Tensor:
        made: torch.Tensor = agent.forward(z, keys, [0])["images"]
        return made

    agree(
        picture_cost(options, CostRequest(num_rows=4)).step,
        measured_call(images, modules=[agent.module()], with_backward=True),
    )


def test_image_to_image_costs_what_the_real_call_does(tmp_path: Path) -> None:
    options = Sd3ImageToImageOptions(**tiny_image_to_image(tmp_path))
    agent = Sd3ImageToImageAgent(options, torch.device("cpu"))
    keys = agent.encode(["a red circle"])["keys"]
    z = torch.zeros(4, agent.module().config.joint_attention_dim, requires_grad=True)
    given = torch.zeros(1, 3, options.height, options.width, requires_grad=True)

    def images() -> torch.Tensor:
        made: torch.Tensor = agent.forward(z, keys, [0], given)["images"]
        return made

    agree(
        picture_cost(options, CostRequest(num_rows=4)).step,
        measured_call(images, modules=[agent.module()], with_backward=True),
    )


def test_all_gradient_steps_keep_all_graphs_and_adapters_train_little(tmp_path: Path) -> None:
    tiny = tiny_text_to_image(tmp_path)
    one, every = (picture_cost(Sd3Options(**{**tiny, "gradient_steps": k}), CostRequest()).step for k in (1, "all"))
    assert every.graph_nbytes > one.graph_nbytes
    assert every.forward.matmul_float32 == one.forward.matmul_float32, "the same model calls"
    adapters = CostRequest(trainable=TrainableSettings(scope="lora", lora_rank=2))
    assert 0 < picture_cost(Sd3Options(**tiny), adapters).num_trained < 20_000


def test_the_own_loss_adds_a_model_call_and_the_encoder(tmp_path: Path) -> None:
    options = Sd3Options(**tiny_text_to_image(tmp_path))
    without, with_loss = (picture_cost(options, CostRequest(adds_loss=adds)).step.forward for adds in (False, True))
    assert with_loss.matmul_float32 > without.matmul_float32
    assert with_loss.convolution_float32 > without.convolution_float32
