"""The toy agents."""

import hashlib
from typing import Any

import torch
from mora_runtime import Agent, remote
from mora_runtime.errors import BadArgument
from safetensors.torch import load_file

from toy_environment.options import CriticOptions, PaintOptions, PlainOptions


class PlainAgent(Agent):
    """Doubles a tensor."""

    def __init__(self, options: PlainOptions, device: torch.device) -> None:
        self._device = device

    @remote
    def double(self, x: torch.Tensor) -> dict[str, Any]:
        return {"x": 2 * x}


class Brush(torch.nn.Module):
    """The one model: weights of the given picture and of the noise, for each colour."""

    def __init__(self) -> None:
        super().__init__()
        self.picture = torch.nn.Parameter(torch.ones(3))
        self.noise = torch.nn.Parameter(torch.ones(3))


class PaintAgent(Agent):
    """Paints over pictures: a transform, and an objective."""

    def __init__(self, options: PaintOptions, device: torch.device) -> None:
        self._side = options.side
        self._brush = Brush().to(device)
        self._brush.load_state_dict(load_file(options.weights))
        self._texts: dict[str, float] = {}
        self._targets: dict[str, torch.Tensor] = {}

    def module(self) -> torch.nn.Module:
        return self._brush

    def model_config(self) -> dict[str, Any]:
        return {"_class_name": "Brush"}

    @remote
    def encode(self, prompts: list[str]) -> dict[str, Any]:
        keys = [hashlib.sha256(prompt.encode()).hexdigest() for prompt in prompts]
        self._texts.update({key: int(key[:4], 16) / 0x10000 for key in keys})
        return {"keys": keys}

    @remote
    def unload_text_encoder(self) -> dict[str, Any]:
        return {}

    @remote
    def modulation_rows(self, text: str, new_token: bool) -> dict[str, Any]:
        return {"rows": torch.full((1 if new_token else 2, 3), 0.1)}

    @remote
    def store_target(self, pixels: torch.Tensor) -> dict[str, Any]:
        if tuple(pixels.shape[1:]) != (self._side, self._side, 3):
            raise BadArgument(f"pixels: expected (F, {self._side}, {self._side}, 3), got {tuple(pixels.shape)}")
        key = hashlib.sha256(pixels.numpy().tobytes()).hexdigest()
        self._targets[key] = pixels[0].permute(2, 0, 1) / 127.5 - 1.0
        return {"key": key}

    @remote
    def initial_noise(self, seed: int) -> dict[str, Any]:
        return {"noise": self._noise([seed])}

    def _noise(self, seeds: list[int]) -> torch.Tensor:
        shape = (3, self._side, self._side)
        return torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds])

    def _paint(self, z: torch.Tensor | None, keys: list[str], seeds: list[int], pictures: torch.Tensor) -> torch.Tensor:
        if not len(keys) == len(seeds) == len(pictures):
            raise BadArgument(f"expected as many seeds and pictures as prompts, got {len(seeds)}, {len(pictures)}")
        unknown = [key for key in keys if key not in self._texts]
        if unknown:
            raise BadArgument(f"unknown prompt key `{unknown[0]}`")
        brush = self._brush
        text = torch.tensor([self._texts[key] for key in keys], dtype=brush.noise.dtype)
        mixed = brush.picture.view(3, 1, 1) * pictures + brush.noise.view(3, 1, 1) * self._noise(seeds).to(pictures)
        moved = mixed + text.view(-1, 1, 1, 1)
        return torch.tanh(moved if z is None else moved + z.sum(dim=0).view(3, 1, 1)).float()

    @remote(differentiable=True)
    def forward(
        self,
        z: torch.Tensor | None,
        prompt_keys: list[str],
        seeds: list[int],
        pictures: torch.Tensor,
        target_keys: list[str] | None = None,
    ) -> dict[str, Any]:
        values = {"images": self._paint(z, prompt_keys, seeds, pictures)}
        if target_keys is not None:
            values["loss"] = self._error(values["images"], target_keys)
        return values

    @remote(differentiable=True)
    def loss(
        self,
        z: torch.Tensor | None,
        prompt_keys: list[str],
        seeds: list[int],
        pictures: torch.Tensor,
        target_keys: list[str],
    ) -> dict[str, Any]:
        return {"loss": self._error(self._paint(z, prompt_keys, seeds, pictures), target_keys)}

    def _error(self, images: torch.Tensor, target_keys: list[str]) -> torch.Tensor:
        unknown = [key for key in target_keys if key not in self._targets]
        if unknown:
            raise BadArgument(f"unknown target key `{unknown[0]}`")
        targets = torch.stack([self._targets[key] for key in target_keys])
        return (images - targets).square().mean(dim=(1, 2, 3)).mean()

    @remote
    def generate(
        self, z: torch.Tensor | None, prompt_keys: list[str], seeds: list[int], pictures: torch.Tensor
    ) -> dict[str, Any]:
        images = self._paint(z, prompt_keys, seeds, pictures)
        pixels = ((images + 1.0) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1)
        return {"outputs": torch.stack([pixels, 255 - pixels], dim=1)}


class CriticAgent(Agent):
    """Prefers clips of one brightness. It has no parameters."""

    def __init__(self, options: CriticOptions, device: torch.device) -> None:
        self._brightness = options.brightness

    @remote
    def score(self, prompts: list[str], frames: torch.Tensor) -> dict[str, Any]:
        return {"scores": -self._errors(prompts, frames)}

    @remote(differentiable=True)
    def loss(self, prompts: list[str], frames: torch.Tensor) -> dict[str, Any]:
        return {"loss": self._errors(prompts, frames).mean()}

    def _errors(self, prompts: list[str], frames: torch.Tensor) -> torch.Tensor:
        if len(prompts) != len(frames):
            raise BadArgument(f"expected as many clips as prompts, got {len(frames)} and {len(prompts)}")
        return (frames - self._brightness).square().mean(dim=(1, 2, 3, 4))
