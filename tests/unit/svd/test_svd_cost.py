"""What the plan counts for Stable Video Diffusion, at the published size and against a real call on the CPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from mora_env_svd.svd.agent import SvdAgent
from mora_env_svd.svd.cost import svd_cost
from mora_env_svd.svd.options import SvdOptions
from mora_environment.cost import CostRequest
from mora_environment.cost_meter import measured_call
from mora_training.training_settings import TrainableSettings

# numpy warns about how the scheduler of diffusers reads a tensor
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(scope="module")
def small(tiny_svd: dict[str, Any]) -> dict[str, Any]:
    """Options of shorter clips, because counting takes time for each operation."""
    return tiny_svd | {"num_frames": 3, "decode_chunk_size": 3}


@pytest.mark.parametrize(
    ("has_loss", "checkpointing"),
    [(True, True), pytest.param(False, False, marks=pytest.mark.long)],
    ids=["loss", "forward"],
)
def test_memory_and_operations_are_those_of_the_real_call(
    small: dict[str, Any], checkpointing: bool, has_loss: bool
) -> None:
    options = SvdOptions(**(small | {"gradient_checkpointing": checkpointing}))
    planned = svd_cost(options, CostRequest(has_loss=has_loss, num_rows=4)).step
    agent = SvdAgent.from_options(options, torch.device("cpu"))
    target = agent.store_target(torch.zeros(3, 32, 32, 3, dtype=torch.uint8))["key"]
    z, images = torch.zeros(4, 32, requires_grad=True), torch.zeros(1, 3, 32, 32, requires_grad=True)

    def call() -> torch.Tensor:
        if has_loss:
            loss: torch.Tensor = agent.loss(z, [""], images, [target], [0])["loss"]
            return loss
        frames: torch.Tensor = agent.forward(z, [""], [0], images)["frames"]
        return frames.sum()

    real = measured_call(call, modules=[agent.module()], with_backward=True)
    for which in ("graph_nbytes", "forward_nbytes", "backward_nbytes"):
        assert getattr(planned, which) == pytest.approx(getattr(real, which), rel=0.15), which
    for name in ("matmul_float32", "convolution_float32"):
        for part in ("forward", "backward"):
            expected = getattr(getattr(real, part), name)
            assert getattr(getattr(planned, part), name) == pytest.approx(expected, rel=0.05), f"{part} {name}"


@pytest.mark.long
def test_the_published_size_is_counted_without_weights() -> None:
    options = SvdOptions(
        model="stabilityai/stable-video-diffusion-img2vid-xt", num_frames=25, height=576, width=1024,
        dtype="bfloat16", gradient_checkpointing=True,
    )  # fmt: skip
    cost = svd_cost(options, CostRequest(has_loss=True, num_rows=1))
    assert cost.num_trained == 1_524_623_082
    step, sample = cost.step, cost.sample.forward
    assert sample.attention == pytest.approx(25 * 2 * step.forward.attention, rel=0.1), "25 calls with guidance"


@pytest.mark.long
def test_steps_without_a_gradient_are_counted_but_not_run(small: dict[str, Any]) -> None:
    few, many = (
        svd_cost(SvdOptions(**(small | {"gradient_steps": 1, "num_inference_steps": steps})), CostRequest()).step
        for steps in (2, 102)
    )
    assert many.backward == few.backward
    per_step = few.forward.matmul_float32 / 2
    assert many.forward.matmul_float32 - few.forward.matmul_float32 == pytest.approx(100 * per_step, rel=0.2)


def test_a_frozen_agent_has_no_gradient_and_adapters_few(small: dict[str, Any]) -> None:
    options = SvdOptions(**small)
    whole = next(component for component in options.components() if component.name == "unet").num_parameters
    lora = TrainableSettings(scope="lora", lora_rank=2)
    assert 0 < svd_cost(options, CostRequest(has_loss=True, trainable=lora)).num_trained < whole / 4
    frozen = svd_cost(
        options, CostRequest(has_loss=True, trainable=TrainableSettings(scope="none"), passes_gradient=False)
    )
    assert frozen.num_trained == 0
    assert frozen.step.backward.num_operations == 0
