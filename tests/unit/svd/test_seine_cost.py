"""What the plan counts for SEINE, at the published sizes and against a real call on the CPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from mora_env_svd.seine.agent import SeineAgent
from mora_env_svd.seine.cost import seine_cost
from mora_env_svd.seine.options import SeineOptions
from mora_environment.cost import CostRequest
from mora_environment.cost_meter import measured_call
from mora_training.training_settings import TrainableSettings


@pytest.fixture(scope="module")
def small(tiny: dict[str, Any]) -> dict[str, Any]:
    """Options of shorter clips, because counting takes time for each operation."""
    return tiny | {"num_frames": 3, "decoded_at_once": 3, "training_masks": ["first1"]}


@pytest.mark.parametrize(
    ("has_loss", "checkpointing"),
    [(True, True), pytest.param(False, False, marks=pytest.mark.long)],
    ids=["loss", "forward"],
)
def test_memory_and_operations_are_those_of_the_real_call(
    small: dict[str, Any], checkpointing: bool, has_loss: bool
) -> None:
    options = SeineOptions(**(small | {"gradient_checkpointing": checkpointing}))
    planned = seine_cost(options, CostRequest(has_loss=has_loss, num_rows=4)).step
    agent = SeineAgent.from_options(options, torch.device("cpu"))
    keys = agent.encode(["a word"])["keys"]
    target = agent.store_target(torch.zeros(3, 32, 32, 3, dtype=torch.uint8))["key"]
    z, images = torch.zeros(4, 32, requires_grad=True), torch.zeros(1, 3, 32, 32, requires_grad=True)

    def call() -> torch.Tensor:
        if has_loss:
            loss: torch.Tensor = agent.loss(z, keys, images, [target], [0])["loss"]
            return loss
        frames: torch.Tensor = agent.forward(z, keys, [0], images)["frames"]
        return frames.sum()

    call()  # the first call also fills what later ones reuse
    real = measured_call(call, modules=[agent.module()], with_backward=True)
    for which in ("graph_nbytes", "forward_nbytes", "backward_nbytes"):
        assert getattr(planned, which) == pytest.approx(getattr(real, which), rel=0.15), which
    for name in ("matmul_float32", "convolution_float32"):
        for part in ("forward", "backward"):
            expected = getattr(getattr(real, part), name)
            assert getattr(getattr(planned, part), name) == pytest.approx(expected, rel=0.05), f"{part} {name}"


@pytest.mark.long
def test_the_published_size_is_counted_without_weights() -> None:
    options = SeineOptions(
        model="Vchitect/SEINE", base="CompVis/stable-diffusion-v1-4", height=320, width=512, dtype="bfloat16",
        gradient_checkpointing=True,
    )  # fmt: skip
    cost = seine_cost(options, CostRequest(has_loss=True))
    assert cost.num_trained == 909_138_500
    step, sample = cost.step, cost.sample.forward
    both = sum(work.matmul + work.convolution + work.attention for work in (step.forward, step.backward))
    one_way = step.forward.matmul + step.forward.convolution + step.forward.attention
    assert both == pytest.approx(4 * one_way, rel=0.05), "forward twice, and its gradients in inputs and parameters"
    assert sample.matmul == pytest.approx(250 * 2 * step.forward.matmul, rel=0.02), "250 calls with guidance"


@pytest.mark.long
def test_steps_without_a_gradient_are_counted_but_not_run(small: dict[str, Any]) -> None:
    few, many = (
        seine_cost(SeineOptions(**(small | {"gradient_steps": 1, "num_inference_steps": steps})), CostRequest()).step
        for steps in (2, 102)
    )
    assert many.backward == few.backward
    per_step = few.forward.matmul_float32 / 2
    assert many.forward.matmul_float32 - few.forward.matmul_float32 == pytest.approx(100 * per_step, rel=0.2)


def test_adapters_and_a_frozen_agent_have_few_gradients(small: dict[str, Any]) -> None:
    options = SeineOptions(**small)
    whole = next(component for component in options.components() if component.name == "unet").num_parameters
    lora = TrainableSettings(scope="lora", lora_rank=2)
    assert 0 < seine_cost(options, CostRequest(has_loss=True, trainable=lora)).num_trained < whole / 4
    frozen = TrainableSettings(scope="none")
    first = seine_cost(options, CostRequest(has_loss=True, trainable=frozen, passes_gradient=False))
    assert first.num_trained == 0
    assert first.step.backward.num_operations == 0
