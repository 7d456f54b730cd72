"""The video agent as a transform: finished frames with a gradient."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mora_env_opensora.agent import OpenSoraAgent
from mora_env_opensora.options import OpenSoraOptions
from mora_env_opensora.pipelines.pixels import pixels_to_frames
from mora_runtime.errors import BadArgument


def make(tiny: Path, **changes: Any) -> OpenSoraAgent:
    options: dict[str, Any] = {
        "model": str(tiny / "transformer_i2v"), "vae": str(tiny / "vae"), "text_encoder": str(tiny / "text_encoder"),
        "num_frames": 5, "height": 32, "width": 32, "max_length": 32, "scheduler": "ddim", "num_inference_steps": 2,
        "guidance_scale": 3.0, "gradient_steps": "all",
    }  # fmt: skip
    return OpenSoraAgent.from_options(OpenSoraOptions(**(options | changes)), torch.device("cpu"))


def arguments(agent: OpenSoraAgent, num: int = 1) -> dict[str, Any]:
    prompts = ["a cat", "a dog walks"][:num]
    images = torch.rand(num, 3, 32, 32, generator=torch.Generator().manual_seed(3)) * 2 - 1
    return {
        "z": agent.modulation_rows(text="[Mod]")["rows"].requires_grad_(True),
        "prompt_keys": agent.encode(prompts=prompts)["keys"],
        "seeds": [5, 6][:num],
        "images": images.requires_grad_(True),
    }


@pytest.mark.parametrize("changes", [{}, {"scheduler": "pndm", "num_inference_steps": 4, "gradient_steps": 1}])
def test_the_frames_are_those_of_generate_before_rounding(tiny: Path, changes: dict[str, Any]) -> None:
    agent = make(tiny, **changes)
    given = arguments(agent, 2)
    with torch.no_grad():
        frames = agent.forward(**given)["frames"]
        outputs = agent.generate(**given)["outputs"]
    assert frames.shape == (2, 5, 3, 32, 32)
    assert frames.dtype == torch.float32
    assert torch.equal(torch.stack([pixels_to_frames(clip) for clip in frames]), outputs)
    with_gradient = agent.forward(**given)["frames"]
    assert with_gradient.requires_grad
    # attention has another kernel when it needs a gradient
    assert torch.allclose(with_gradient, frames, atol=1e-4)


def slope(
    function: Callable[[torch.Tensor], torch.Tensor], at: torch.Tensor, direction: torch.Tensor, step: float
) -> float:
    with torch.no_grad():
        return float((function(at + step * direction) - function(at - step * direction)) / (2 * step))


def test_gradients_equal_finite_differences(tiny: Path) -> None:
    agent = make(tiny)
    given = arguments(agent)
    weights = torch.randn(1, 5, 3, 32, 32, generator=torch.Generator().manual_seed(1))

    def value(**changes: torch.Tensor) -> torch.Tensor:
        return (agent.forward(**{**given, **changes})["frames"].double() * weights).sum()

    value().backward()
    for name, step in (("images", 1e-3), ("z", 1e-2)):
        at, gradient = given[name].detach(), given[name].grad
        direction = gradient.sign()  # along it the derivative is large against the rounding of float32
        expected = float((gradient * direction).sum())
        found = slope(lambda moved, name=name: value(**{name: moved}), at, direction, step)
        assert expected > 1.0
        assert found == pytest.approx(expected, rel=1e-2)


def test_only_the_last_k_model_calls_carry_gradient(tiny: Path) -> None:
    frames, gradients = [], []
    for steps in (1, 2):
        agent = make(tiny, gradient_steps=steps)
        given = arguments(agent)
        made = agent.forward(**given)["frames"]
        made.square().mean().backward()
        frames.append(made.detach())
        gradients.append((given["images"].grad, given["z"].grad, next(agent.module().parameters()).grad))
    assert torch.equal(frames[0], frames[1])
    for one, every in zip(*gradients, strict=True):
        assert one.abs().max() > 0
        assert not torch.allclose(one, every)


def test_with_targets_it_adds_the_loss(tiny: Path) -> None:
    agent = make(tiny)
    given = arguments(agent)
    clip = torch.randint(0, 256, (5, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    targets = [agent.store_target(pixels=clip)["key"]]
    found = agent.forward(**given, target_keys=targets)
    assert torch.equal(found["loss"], agent.loss(**given, target_keys=targets)["loss"])
    assert "loss" not in agent.forward(**given)


def test_without_gradient_steps_it_is_refused(tiny: Path) -> None:
    agent = make(tiny, gradient_steps=None)
    with pytest.raises(BadArgument, match="expected the option `gradient_steps`"):
        agent.forward(**arguments(agent))
