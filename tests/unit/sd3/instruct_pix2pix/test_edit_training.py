"""InstructPix2Pix in training: gradients against finite differences, the loss against its formula, adapters."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionInstructPix2PixPipeline
from mora_env_sd3.__main__ import KINDS
from mora_env_sd3.instruct_pix2pix.agent import _NOISE_STREAM, InstructPix2PixAgent
from mora_env_sd3.instruct_pix2pix.objective import EditObjective
from mora_env_sd3.instruct_pix2pix.options import InstructPix2PixOptions
from mora_environment.adapters.export_command import answer_export
from mora_runtime.errors import BadArgument
from mora_training.adapters import adapter_tensors
from mora_training.trainable import select_trainable
from mora_training.training_settings import ADAPTER_FILE, TrainableSettings
from safetensors.torch import save_file
from torch import Tensor

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning")
PROMPTS = ["make it red", "turn it into a square"]
SEEDS = [5, 6]


def built(edit_options: dict[str, Any], **changes: Any) -> InstructPix2PixAgent:
    return InstructPix2PixAgent(InstructPix2PixOptions(**{**edit_options, **changes}), torch.device("cpu"))


def keys(agent: InstructPix2PixAgent, *prompts: str) -> list[str]:
    found: list[str] = agent.encode(prompts=list(prompts))["keys"]
    return found


def as_bytes(num: int) -> Tensor:
    return torch.randint(0, 256, (num, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(7))


def pictures(num: int) -> Tensor:
    return as_bytes(num).permute(0, 3, 1, 2) / 127.5 - 1.0


class _Double:
    """The agent's `edited` and loss in float64, without the roundings to float32."""

    def __init__(self, agent: InstructPix2PixAgent) -> None:
        self.agent = agent
        self.unet = agent.editor.unet.double()
        agent.editor.autoencoder.vae.double()
        self.texts = [agent._encoders.embed(PROMPTS[0]).rows]
        self.negative = agent._encoders.embed("").rows
        self._weight = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
        agent.editor.decode = self._decode

    def _decode(self, latents: Tensor) -> Tensor:
        vae = self.agent.editor.autoencoder.vae
        decoded: Tensor = vae.decode(latents.double() / vae.config.scaling_factor, return_dict=False)[0]
        return decoded

    def edited(self, images: Tensor, z: Tensor) -> Tensor:
        made = self.agent.editor.edited(z, self.texts, self.negative, images, [5], self.agent.settings())
        return (made * self._weight).sum()

    def loss(self, images: Tensor, z: Tensor) -> Tensor:
        objective = EditObjective(self.agent.editor, 5.0)
        objective.noise.weighted_error = self._error  # type: ignore[method-assign]
        self._weights = objective.noise.weights
        return objective.loss(z, self.texts, images, pictures(1).flip(-1), [5])

    def _error(self, predicted: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        return (self._weights(timesteps) * (predicted - noise).square().flatten(1).mean(dim=1)).mean()


def slope(function: Callable[[Tensor], Tensor], at: Tensor, direction: Tensor, step: float) -> float:
    with torch.no_grad():
        return float((function(at + step * direction) - function(at - step * direction)) / (2 * step))


@pytest.mark.parametrize("which", ["edited", "loss"])
def test_gradients_equal_finite_differences_in_float64(edit_options: dict[str, Any], which: str) -> None:
    # the steps round latents to float32 in every scheduler of diffusers; one step leaves one such rounding
    double = _Double(built(edit_options, num_inference_steps=1, gradient_steps=1))
    function: Callable[[Tensor, Tensor], Tensor] = getattr(double, which)
    images = pictures(1).double().requires_grad_(True)
    z = torch.randn(2, 32, generator=torch.Generator().manual_seed(2)).double().requires_grad_(True)
    weight = double.unet.get_parameter("conv_in.weight")
    function(images, z).backward()
    start = weight.detach().clone()

    def with_weight(value: Tensor) -> Tensor:
        weight.data.copy_(value)
        try:
            return function(images, z)
        finally:
            weight.data.copy_(start)

    step = 1e-5 if which == "loss" else 3e-4
    for number, (varied, at) in enumerate(
        ((lambda value: function(value, z), images), (lambda value: function(images, value), z), (with_weight, weight))
    ):
        assert at.grad is not None
        signs = torch.randn(at.shape, generator=torch.Generator().manual_seed(number), dtype=torch.float64).sign()
        direction = at.grad.sign() + 0.1 * signs
        expected = float((at.grad * direction).sum())
        assert abs(expected) > 1e-4
        tolerance = 1e-5 if which == "loss" else 2e-3
        assert slope(varied, at.detach().clone(), direction, step) == pytest.approx(expected, rel=tolerance)


def test_the_loss_is_the_formula(edit_agent: InstructPix2PixAgent) -> None:
    images, targets = pictures(2), as_bytes(2).flip(2)
    found = [edit_agent.store_target(frame[None])["key"] for frame in targets]
    z = torch.randn(2, 32, generator=torch.Generator().manual_seed(2))
    loss = edit_agent.loss(z, keys(edit_agent, *PROMPTS), SEEDS, images, found)["loss"]
    objective, editor, vae = edit_agent._objective.noise, edit_agent.editor, edit_agent.editor.autoencoder.vae
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    by_hand = []
    for index, seed in enumerate(SEEDS):
        own = seed ^ _NOISE_STREAM
        timestep, noise = objective.draw(own, torch.Size((1, 4, 4, 4)))
        alpha = (1.0 - betas).cumprod(dim=0)[timestep]
        posterior = vae.encode(targets[index : index + 1].permute(0, 3, 1, 2) / 127.5 - 1.0).latent_dist
        draw = torch.randn((1, 4, 4, 4), generator=torch.Generator().manual_seed(own ^ 0x696D67))
        clean = (posterior.mean + posterior.std * draw) * 0.18215
        noisy = (alpha.sqrt() * clean.double() + (1.0 - alpha).sqrt() * noise.double()).float()
        given = vae.encode(images[index : index + 1]).latent_dist.mode()
        text = torch.cat([edit_agent._encoders.embed(PROMPTS[index]).rows, z])[None]
        predicted = editor.unet(torch.cat([noisy, given], dim=1), timestep, encoder_hidden_states=text).sample
        ratio = alpha / (1.0 - alpha)
        by_hand.append(torch.clamp(5.0 / ratio, max=1.0) * (predicted.double() - noise.double()).square().mean())
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(float(torch.stack(by_hand).mean()), rel=1e-6)


def test_forward_adds_the_loss_and_unknown_targets_are_refused(edit_agent: InstructPix2PixAgent) -> None:
    images, prompt_keys = pictures(1), keys(edit_agent, PROMPTS[0])
    target = edit_agent.store_target(as_bytes(3))["key"]
    assert target == edit_agent.store_target(as_bytes(1))["key"], "only the first frame counts"
    assert edit_agent.has_targets([target, "absent"]) == {"found": [True, False]}
    with torch.no_grad():
        values = edit_agent.forward(None, prompt_keys, [5], images, [target])
        assert torch.equal(values["loss"], edit_agent.loss(None, prompt_keys, [5], images, [target])["loss"])
    with pytest.raises(BadArgument, match="unknown target key `absent`"):
        edit_agent.loss(None, prompt_keys, [5], images, ["absent"])


def test_before_the_last_k_steps_the_prediction_counts_as_a_constant(edit_options: dict[str, Any]) -> None:
    found = {}
    for steps in (1, "all"):
        agent = built(edit_options, gradient_steps=steps)
        images = pictures(1).requires_grad_(True)
        made = agent.forward(z=None, prompt_keys=keys(agent, PROMPTS[0]), seeds=[4], images=images)["images"]
        made.square().mean().backward()
        assert images.grad is not None
        assert images.grad.abs().max() > 0
        found[steps] = (made.detach(), images.grad, agent.module().get_parameter("conv_out.weight").grad)
    assert torch.equal(found[1][0], found["all"][0])
    for one, every in zip(found[1][1:], found["all"][1:], strict=True):
        assert not torch.allclose(one, every)


def test_the_pipeline_of_diffusers_loads_exported_adapters(edit_options: dict[str, Any], tmp_path: Path) -> None:
    agent, source, target = built(edit_options), tmp_path / "adapters", tmp_path / "exported"
    source.mkdir()
    target.mkdir()
    trainable = TrainableSettings(scope="lora", lora_rank=2, lora_alpha=6.0)
    select_trainable(agent.module(), trainable)
    generator = torch.Generator().manual_seed(3)
    for name, value in agent.module().named_parameters():
        if "lora_B" in name:  # zeros, with which adapters have no effect
            value.data = 0.3 * torch.randn(value.shape, generator=generator)
    own = {name: value.detach().contiguous() for name, value in adapter_tensors(agent.module()).items()}
    save_file(own, source / ADAPTER_FILE)
    (source / "config.json").write_text(json.dumps(trainable.model_dump()))
    request = {
        "kind": "instruct_pix2pix", "options": edit_options, "source": "agents.edit", "weights": None,
        "format": "diffusers-lora", "folder": str(source), "target": str(target),
    }  # fmt: skip
    assert "error" not in answer_export(KINDS, "mora_env_sd3", request)
    pipeline = StableDiffusionInstructPix2PixPipeline.from_pretrained(
        edit_options["model"], safety_checker=None, feature_extractor=None, requires_safety_checker=False
    )
    inputs = (
        torch.randn(1, 8, 4, 4, generator=generator),
        torch.tensor(500),
        torch.randn(1, 9, 32, generator=generator),
    )
    with torch.no_grad():
        untrained = pipeline.unet(*inputs).sample
        pipeline.load_lora_weights(str(target))
        found, expected = pipeline.unet(*inputs).sample, agent.module()(*inputs).sample
    assert torch.allclose(found, expected, atol=1e-5, rtol=0)
    assert (untrained - expected).abs().max() > 1e-3
