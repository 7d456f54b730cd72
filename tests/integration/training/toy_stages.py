"""Agents of chains that take no time: a linear model a stage, hosted by `python toy_stages.py` for `spawn`."""

from __future__ import annotations

import os
from typing import Any

import torch
from mora_environment.interface import Interface, Port
from mora_runtime import Agent, host, remote

SIDE = 4
NUM_PIXELS = 3 * SIDE * SIDE
WIDTH = 5  # of z
IMAGES = Port(modality="images", height=SIDE, width=SIDE)
FRAMES = Port(modality="frames", height=SIDE, width=SIDE, num_frames=2)


class ToyAgent(Agent):
    """Common part: a seeded linear model of pixels, noise and z."""

    interface = Interface()

    def __init__(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.model = torch.nn.Linear(NUM_PIXELS + WIDTH, NUM_PIXELS)
        with torch.no_grad():
            for parameter in self.model.parameters():
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))

    def module(self) -> torch.nn.Module:
        return self.model

    def made(self, z: torch.Tensor | None, seeds: list[int], images: torch.Tensor | None) -> torch.Tensor:
        noise = torch.stack([torch.randn(3, SIDE, SIDE, generator=torch.Generator().manual_seed(s)) for s in seeds])
        pixels = noise if images is None else images + 0.1 * noise
        row = torch.zeros(WIDTH) if z is None else z.mean(dim=0)
        inputs = torch.cat([pixels.flatten(1), row.expand(len(seeds), -1)], dim=1)
        return torch.tanh(self.model(inputs)).view(-1, 3, SIDE, SIDE)

    @remote
    def modulation_rows(self, text: str, new_token: bool) -> dict[str, Any]:
        return {"rows": torch.full((2, WIDTH), 0.1 * len(text))}

    @remote
    def gradients(self) -> dict[str, Any]:
        """Accumulated gradients of the model by name, cleared."""
        found = {name: p.grad.clone() for name, p in self.model.named_parameters() if p.grad is not None}
        self.model.zero_grad(set_to_none=True)
        return found

    @remote
    def store_target(self, pixels: torch.Tensor) -> dict[str, Any]:
        return {"key": str(int(pixels.sum()))}


def distance(images: torch.Tensor, target_keys: list[str]) -> torch.Tensor:
    return torch.stack(
        [((each - int(key) % 7 / 7.0) ** 2).mean() for each, key in zip(images, target_keys, strict=True)]
    ).mean()


class ToySource(ToyAgent):
    interface = Interface(gives={"images": IMAGES}, has_loss=True, needs_targets=True, has_modulation=True)

    @remote(differentiable=True)
    def forward(
        self, z: torch.Tensor | None, prompt_keys: list[str], seeds: list[int], target_keys: list[str] | None = None
    ) -> dict[str, Any]:
        images = self.made(z, seeds, None)
        own = {} if target_keys is None else {"loss": distance(images, target_keys)}
        return {"images": images, **own}


class ToyTransform(ToyAgent):
    interface = Interface(takes={"images": IMAGES}, gives={"images": IMAGES}, has_modulation=True)

    @remote(differentiable=True)
    def forward(
        self, z: torch.Tensor | None, prompt_keys: list[str], seeds: list[int], images: torch.Tensor
    ) -> dict[str, Any]:
        return {"images": self.made(z, seeds, images)}


class ToyAnimator(ToyAgent):
    """Gives frames, and has no z."""

    interface = Interface(takes={"images": IMAGES}, gives={"frames": FRAMES})

    @remote(differentiable=True)
    def forward(
        self, z: torch.Tensor | None, prompt_keys: list[str], seeds: list[int], images: torch.Tensor
    ) -> dict[str, Any]:
        return {"frames": torch.stack([images, self.made(z, seeds, images)], dim=1)}


class ToyObjective(ToyAgent):
    interface = Interface(
        takes={"images": IMAGES}, has_loss=True, needs_targets=True, has_modulation=True, generates=FRAMES
    )

    @remote(differentiable=True)
    def loss(
        self,
        z: torch.Tensor | None,
        prompt_keys: list[str],
        seeds: list[int],
        images: torch.Tensor,
        target_keys: list[str],
    ) -> dict[str, Any]:
        return {"loss": distance(self.made(z, seeds, images), target_keys)}

    @remote
    def generate(
        self, z: torch.Tensor | None, prompt_keys: list[str], seeds: list[int], images: torch.Tensor
    ) -> dict[str, Any]:
        frames = torch.stack([images, self.made(z, seeds, images)], dim=1).movedim(2, -1)
        return {"outputs": ((frames + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8)}


class ToyCritic(Agent):
    interface = Interface(takes={"frames": FRAMES}, has_loss=True, is_critic=True)

    @remote(differentiable=True)
    def loss(self, prompts: list[str], frames: torch.Tensor) -> dict[str, Any]:
        wanted = torch.tensor([len(prompt) / 20.0 for prompt in prompts])
        return {"loss": ((frames.mean(dim=(1, 2, 3, 4)) - wanted) ** 2).mean()}


AGENTS = {
    "source": ToySource,
    "transform": ToyTransform,
    "animator": ToyAnimator,
    "objective": ToyObjective,
}


def toy(kind: str, seed: int) -> Agent:
    return ToyCritic() if kind == "critic" else AGENTS[kind](seed)


if __name__ == "__main__":
    name, kind, seed = os.environ["TOY_STAGE"].split(":")
    torch.set_num_threads(1)
    host(**{name: toy(kind, int(seed))})
