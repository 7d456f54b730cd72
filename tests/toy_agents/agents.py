"""The toy agents: a linear model of a few pixels, noise and z each."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from mora_runtime import Agent, remote
from mora_runtime.errors import BadArgument
from safetensors.torch import load_file

from tests.toy_agents.options import SIDE, CriticOptions, ToyOptions
from tests.toy_agents.served import ServesClips, ServesEdits, ServesPictures, clips, to_pixels

WIDTH = 640  # of z: large enough to travel in shared memory
_POOL = 8  # the model sees the mean of so many pixels a side


class ToyAgent(Agent):
    """Common part: z, targets and the model."""

    def __init__(self, options: ToyOptions, device: torch.device) -> None:
        num_inputs = 3 * (SIDE // _POOL) ** 2
        self.model = torch.nn.Linear(num_inputs + WIDTH, num_inputs)
        generator = torch.Generator().manual_seed(options.seed)
        with torch.no_grad():
            for parameter in self.model.parameters():
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
        if options.weights is not None:
            self.model.load_state_dict(load_file(Path(options.weights) / "diffusion_pytorch_model.safetensors"))
        self._targets: dict[str, torch.Tensor] = {}

    def module(self) -> torch.nn.Module:
        return self.model

    def model_config(self) -> dict[str, Any]:
        return {"_class_name": "Linear"}

    @remote
    def modulation_rows(self, text: str, new_token: bool) -> dict[str, Any]:
        return {"rows": torch.full((2, WIDTH), 0.1 * len(text))}

    @remote
    def store_target(self, pixels: torch.Tensor) -> dict[str, Any]:
        key = hashlib.sha256(pixels.numpy().tobytes()).hexdigest()
        self._targets[key] = pixels[-1].permute(2, 0, 1) / 127.5 - 1.0
        return {"key": key}

    @remote
    def initial_noise(self, seed: int) -> dict[str, Any]:
        return {"noise": noise([seed])}

    @remote
    def take_gradients(self) -> dict[str, Any]:
        """Accumulated gradients of the model by name, which are cleared."""
        found = {name: p.grad.clone() for name, p in self.model.named_parameters() if p.grad is not None}
        self.model.zero_grad(set_to_none=True)
        return found

    def made(self, z: torch.Tensor | None, seeds: list[int], images: torch.Tensor | None) -> torch.Tensor:
        """Pictures (B, 3, H, W) from pictures or noise."""
        if images is not None and len(images) != len(seeds):
            raise BadArgument(f"expected a seed a picture, got {len(seeds)} seeds and {len(images)} pictures")
        pixels = noise(seeds) if images is None else images + 0.1 * noise(seeds)
        row = torch.zeros(WIDTH) if z is None else z.mean(dim=0)
        small = torch.nn.functional.avg_pool2d(pixels, _POOL)
        inputs = torch.cat([small.flatten(1), row.expand(len(seeds), -1)], dim=1)
        drawn = torch.tanh(self.model(inputs)).view_as(small)
        return torch.nn.functional.interpolate(drawn, scale_factor=float(_POOL))

    def distance(self, images: torch.Tensor, target_keys: list[str]) -> torch.Tensor:
        """Mean squared error of pictures to the last frames of their targets."""
        return torch.nn.functional.mse_loss(images, torch.stack([self._targets[key] for key in target_keys]))


def noise(seeds: list[int]) -> torch.Tensor:
    """(B, 3, H, W), of which sample b depends on its seed only."""
    return torch.stack([torch.randn(3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed)) for seed in seeds])


class ToySource(ToyAgent, ServesPictures):
    """Noise to pictures."""

    @remote(differentiable=True)
    def forward(
        self, z: torch.Tensor | None, prompt_keys: list[str], seeds: list[int], target_keys: list[str] | None = None
    ) -> dict[str, Any]:
        images = self.made(z, seeds, None)
        own = {} if target_keys is None else {"loss": self.distance(images, target_keys)}
        return {"images": images, **own}


class ToyTransform(ToyAgent):
    """Pictures to pictures."""

    @remote(differentiable=True)
    def forward(
        self, z: torch.Tensor | None, prompt_keys: list[str], seeds: list[int], images: torch.Tensor
    ) -> dict[str, Any]:
        return {"images": self.made(z, seeds, images)}


class ToyEditor(ToyTransform, ServesEdits):
    """Pictures to pictures, also by instruction."""


class ToyMover(ToyAgent):
    """Pictures to clips: from the picture to the one that the model makes of it."""

    @remote(differentiable=True)
    def forward(
        self, z: torch.Tensor | None, prompt_keys: list[str], seeds: list[int], images: torch.Tensor
    ) -> dict[str, Any]:
        return {"frames": clips(images, self.made(z, seeds, images))}


class ToyLast(ToyAgent, ServesClips):
    """Pictures to clips, with a loss on their last frames."""

    @remote(differentiable=True)
    def loss(
        self,
        z: torch.Tensor | None,
        prompt_keys: list[str],
        seeds: list[int],
        images: torch.Tensor,
        target_keys: list[str],
    ) -> dict[str, Any]:
        return {"loss": self.distance(self.made(z, seeds, images), target_keys)}

    @remote
    def generate(
        self, z: torch.Tensor | None, prompt_keys: list[str], seeds: list[int], images: torch.Tensor
    ) -> dict[str, Any]:
        return {"outputs": to_pixels(clips(images, self.made(z, seeds, images)))}


class ToyCritic(Agent):
    """Wants clips as bright as their prompts are long."""

    def __init__(self, options: CriticOptions, device: torch.device) -> None:
        pass

    @remote
    def score(self, prompts: list[str], frames: torch.Tensor) -> dict[str, Any]:
        return {"scores": -_errors(prompts, frames)}

    @remote(differentiable=True)
    def loss(self, prompts: list[str], frames: torch.Tensor) -> dict[str, Any]:
        return {"loss": _errors(prompts, frames).mean()}


def _errors(prompts: list[str], frames: torch.Tensor) -> torch.Tensor:
    return (frames.mean(dim=(1, 2, 3, 4)) - torch.tensor([len(prompt) / 20.0 for prompt in prompts])) ** 2
