"""Kinds that differ from the sound ones in one way, which the conformance suite must notice."""

from typing import Any

import torch
from mora_environment import Interface, Kind
from mora_runtime import remote
from pydantic import ConfigDict, field_validator

from toy_environment.agent import CriticAgent, PaintAgent
from toy_environment.options import CriticOptions, PaintOptions

_counter = iter(range(1 << 30))


class LooseOptions(PaintOptions):
    model_config = ConfigDict(extra="ignore")


class UnstableOptions(PaintOptions):
    @field_validator("side")
    @classmethod
    def _half(cls, side: int) -> int:
        if side < 4:
            raise ValueError(f"expected at least 4, got {side}")
        return side // 2


class MoreNoiseOptions(CriticOptions):
    def interface(self) -> Interface:
        return super().interface().model_copy(update={"has_noise": True})


class WithoutTargets(PaintAgent):
    @remote(differentiable=True)
    def forward(
        self, z: torch.Tensor | None, prompt_keys: list[str], seeds: list[int], pictures: torch.Tensor
    ) -> dict[str, Any]:
        return super().forward(z, prompt_keys, seeds, pictures)


class NeedsMore(PaintAgent):
    @remote
    def initial_noise(self, seed: int, size: int) -> dict[str, Any]:
        return super().initial_noise(seed)


class WithoutGraph(PaintAgent):
    @remote
    def loss(
        self, z: torch.Tensor | None, prompt_keys: list[str], seeds: list[int], pictures: torch.Tensor,
        target_keys: list[str],
    ) -> dict[str, Any]:  # fmt: skip
        return super().loss(z, prompt_keys, seeds, pictures, target_keys)


class WithoutConfig(PaintAgent):
    model_config = None  # type: ignore[assignment]


class RandomKeys(PaintAgent):
    @remote
    def encode(self, prompts: list[str]) -> dict[str, Any]:
        keys = [f"{next(_counter)}" for _ in prompts]
        self._texts.update(dict.fromkeys(keys, 0.5))
        return {"keys": keys}


class FlatRows(PaintAgent):
    @remote
    def modulation_rows(self, text: str, new_token: bool) -> dict[str, Any]:
        return {"rows": super().modulation_rows(text, new_token)["rows"].double()}


class OneNoise(PaintAgent):
    @remote
    def initial_noise(self, seed: int) -> dict[str, Any]:
        return super().initial_noise(0)


class NewKeys(PaintAgent):
    @remote
    def store_target(self, pixels: torch.Tensor) -> dict[str, Any]:
        key = f"{next(_counter)}"
        self._targets[key] = self._targets[super().store_target(pixels)["key"]]
        return {"key": key}


class OneKey(PaintAgent):
    @remote
    def store_target(self, pixels: torch.Tensor) -> dict[str, Any]:
        self._targets["clip"] = self._targets[super().store_target(pixels)["key"]]
        return {"key": "clip"}


class _Painting(PaintAgent):
    """`forward` with a change of its images, or of its arguments."""

    def _changed(self, images: torch.Tensor) -> torch.Tensor:
        return images

    def _given(self, z: torch.Tensor | None, pictures: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor]:
        return z, pictures

    @remote(differentiable=True)
    def forward(
        self, z: torch.Tensor | None, prompt_keys: list[str], seeds: list[int], pictures: torch.Tensor,
        target_keys: list[str] | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        values = super().forward(*self._reordered(z, prompt_keys, seeds, pictures), target_keys)
        return {**values, "images": self._changed(values["images"])}

    def _reordered(
        self, z: torch.Tensor | None, keys: list[str], seeds: list[int], pictures: torch.Tensor
    ) -> tuple[torch.Tensor | None, list[str], list[int], torch.Tensor]:
        z, pictures = self._given(z, pictures)
        return z, keys, seeds, pictures


class DoubleImages(_Painting):
    def _changed(self, images: torch.Tensor) -> torch.Tensor:
        return images.double()


class SmallerImages(_Painting):
    def _changed(self, images: torch.Tensor) -> torch.Tensor:
        return images[..., 1:]


class InfiniteImages(_Painting):
    def _changed(self, images: torch.Tensor) -> torch.Tensor:
        return torch.where(images > 0, torch.inf, images)


class Unnamed(_Painting):
    @remote(differentiable=True)
    def forward(
        self, z: torch.Tensor | None, prompt_keys: list[str], seeds: list[int], pictures: torch.Tensor,
        target_keys: list[str] | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        values = super().forward(z, prompt_keys, seeds, pictures, target_keys)
        return {"pictures": values["images"], "loss": values["loss"]}


class GlobalNoise(_Painting):
    def _changed(self, images: torch.Tensor) -> torch.Tensor:
        return images + 1e-3 * torch.randn(images.shape)


class Counting(_Painting):
    def _changed(self, images: torch.Tensor) -> torch.Tensor:
        return images + next(_counter) * 1e-6


class DrawsInVain(_Painting):
    def _changed(self, images: torch.Tensor) -> torch.Tensor:
        torch.rand(1)
        return images


class BatchNorm(_Painting):
    def _changed(self, images: torch.Tensor) -> torch.Tensor:
        return images - 0.01 * images.mean(dim=0)


class DetachedPictures(_Painting):
    def _given(self, z: torch.Tensor | None, pictures: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor]:
        return z, pictures.detach()


class HalfDetachedPictures(_Painting):
    def _given(self, z: torch.Tensor | None, pictures: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor]:
        return z, torch.cat([pictures[..., :2], pictures[..., 2:].detach()], dim=-1)


class DetachedModulation(_Painting):
    def _given(self, z: torch.Tensor | None, pictures: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor]:
        return None if z is None else z.detach(), pictures


class DetachedImages(_Painting):
    def _changed(self, images: torch.Tensor) -> torch.Tensor:
        return images.detach()


class FrozenNoise(PaintAgent):
    def _paint(self, z: torch.Tensor | None, keys: list[str], seeds: list[int], pictures: torch.Tensor) -> torch.Tensor:
        weight = self._brush.noise
        self._brush.noise.requires_grad_(False)
        try:
            return super()._paint(z, keys, seeds, pictures)
        finally:
            weight.requires_grad_(True)


class SteepLoss(PaintAgent):
    def _error(self, images: torch.Tensor, target_keys: list[str]) -> torch.Tensor:
        error = super()._error(images, target_keys)
        return error + 0.1 * (error - error.detach())


class SummedLoss(PaintAgent):
    def _error(self, images: torch.Tensor, target_keys: list[str]) -> torch.Tensor:
        return super()._error(images, target_keys) * len(images)


class FloatClips(PaintAgent):
    @remote
    def generate(
        self, z: torch.Tensor | None, prompt_keys: list[str], seeds: list[int], pictures: torch.Tensor
    ) -> dict[str, Any]:
        return {"outputs": super().generate(z, prompt_keys, seeds, pictures)["outputs"].float()}


class OneSeed(PaintAgent):
    @remote
    def generate(
        self, z: torch.Tensor | None, prompt_keys: list[str], seeds: list[int], pictures: torch.Tensor
    ) -> dict[str, Any]:
        return super().generate(z, prompt_keys, seeds[:1] * len(seeds), pictures)


class CrashesOnKeys(PaintAgent):
    def _paint(self, z: torch.Tensor | None, keys: list[str], seeds: list[int], pictures: torch.Tensor) -> torch.Tensor:
        [self._texts[key] for key in keys]
        return super()._paint(z, keys, seeds, pictures)


class TakesAnything(PaintAgent):
    @remote
    def initial_noise(self, seed: Any) -> dict[str, Any]:
        return super().initial_noise(seed)


class ScoreTable(CriticAgent):
    @remote
    def score(self, prompts: list[str], frames: torch.Tensor) -> dict[str, Any]:
        return {"scores": super().score(prompts, frames)["scores"][:, None]}


def _paint(build: type[PaintAgent], options: type[PaintOptions] = PaintOptions) -> Kind:
    return Kind(options=options, build=build, weights="weights", tiny="toy_environment.tiny:make_tiny")


def _tiny(name: str) -> Kind:
    return Kind(options=PaintOptions, build=PaintAgent, weights="weights", tiny=f"toy_environment.tiny:{name}")


_AGENTS = (
    WithoutTargets, NeedsMore, WithoutGraph, WithoutConfig, RandomKeys, FlatRows, OneNoise, NewKeys, OneKey,
    DoubleImages, SmallerImages, InfiniteImages, Unnamed, GlobalNoise, Counting, DrawsInVain, BatchNorm,
    DetachedPictures, HalfDetachedPictures, DetachedModulation, DetachedImages, FrozenNoise, SteepLoss, SummedLoss,
    FloatClips, OneSeed, CrashesOnKeys, TakesAnything,
)  # fmt: skip
BROKEN = {
    **{agent.__name__: _paint(agent) for agent in _AGENTS},
    "LooseOptions": _paint(PaintAgent, LooseOptions),
    "UnstableOptions": _paint(PaintAgent, UnstableOptions),
    "MakerThatTellsNothing": _tiny("tell_nothing"),
    "MakerThatFails": _tiny("fail"),
    "MakerOfOtherOptions": _tiny("make_other_options"),
    "MakerOfHalfAModel": _tiny("make_half"),
    "ScoreTable": Kind(options=CriticOptions, build=ScoreTable, tiny="toy_environment.tiny:make_critic"),
    "MoreNoiseOptions": Kind(options=MoreNoiseOptions, build=CriticAgent, tiny="toy_environment.tiny:make_critic"),
}
