"""What the plan counts for InstructPix2Pix, at the published sizes and against real calls on the CPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from mora_env_sd3.instruct_pix2pix import published
from mora_env_sd3.instruct_pix2pix.agent import InstructPix2PixAgent
from mora_env_sd3.instruct_pix2pix.cost import edit_cost
from mora_env_sd3.instruct_pix2pix.options import InstructPix2PixOptions
from mora_environment.cost import CostRequest
from mora_environment.cost_meter import measured_call
from mora_training.training_settings import TrainableSettings

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning")


@pytest.mark.parametrize(
    ("has_loss", "checkpointing"), [(True, False), (False, True)], ids=["loss", "forward, recomputed"]
)
def test_memory_and_operations_are_those_of_the_real_call(
    edit_options: dict[str, Any], has_loss: bool, checkpointing: bool
) -> None:
    options = InstructPix2PixOptions(**{**edit_options, "gradient_checkpointing": checkpointing, "gradient_steps": 1})
    agent = InstructPix2PixAgent(options, torch.device("cpu"))
    keys = agent.encode(["make it red"])["keys"]
    target = agent.store_target(torch.zeros(1, 32, 32, 3, dtype=torch.uint8))["key"]
    z, images = torch.zeros(4, 32, requires_grad=True), torch.zeros(1, 3, 32, 32, requires_grad=True)

    def call() -> torch.Tensor:
        if has_loss:
            loss: torch.Tensor = agent.loss(z, keys, [0], images, [target])["loss"]
            return loss
        made: torch.Tensor = agent.forward(z, keys, [0], images)["images"]
        return made

    real = measured_call(call, modules=[agent.module()], with_backward=True)
    planned = edit_cost(options, CostRequest(has_loss=has_loss, num_rows=4)).step
    for which in ("graph_nbytes", "forward_nbytes", "backward_nbytes"):
        assert getattr(planned, which) == pytest.approx(getattr(real, which), rel=0.15), which
    for part in ("forward", "backward"):
        for name in ("matmul_float32", "convolution_float32"):
            counted = getattr(getattr(planned, part), name)
            assert counted == pytest.approx(getattr(getattr(real, part), name), rel=0.02), (part, name)


def test_the_published_size_is_counted_without_weights() -> None:
    options = InstructPix2PixOptions(
        model=published.INSTRUCT_PIX2PIX, height=512, width=512, dtype="bfloat16", num_inference_steps=2
    )
    cost = edit_cost(options, CostRequest(trainable=TrainableSettings(scope="none"), passes_gradient=False, num_rows=0))
    assert cost.num_trained == 0
    forward = cost.sample.forward
    unet = (forward.matmul + forward.attention + forward.convolution) / 2 / 3
    assert unet / 1e12 == pytest.approx(0.80, rel=0.05), "one prediction at 64x64 latents"
    assert forward.convolution_float32 > 0, "the autoencoder is float32, as its configuration asks"


def test_guidance_costs_three_predictions_and_an_own_loss_one_more(edit_options: dict[str, Any]) -> None:
    one_step = {**edit_options, "num_inference_steps": 1, "gradient_steps": 1}

    def work(request: CostRequest, **changes: Any) -> int:
        return edit_cost(InstructPix2PixOptions(**{**one_step, **changes}), request).step.forward.matmul_float32

    unguided, guided = work(CostRequest(), guidance_scale=1.0), work(CostRequest())
    own_loss = work(CostRequest(adds_loss=True)) - guided
    assert guided > 2.5 * unguided
    assert own_loss == pytest.approx((guided - unguided) / 2, rel=0.1)
