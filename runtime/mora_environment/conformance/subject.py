"""One kind under test: its tiny models, its agent, and the samples that the checks call it with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from mora_runtime import Agent

from mora_environment.interface import Interface, Port
from mora_environment.kind import Kind
from mora_environment.promised_methods import Promise
from mora_environment.tiny_command import make_tiny

PROMPTS = ("a red circle moves left", "a blue square moves up over the sea")
SEEDS = (5, 1_000_003)
_ANY_SIDE = 32  # of inputs whose size the agent leaves open
_ANY_NUM_FRAMES = 5
_SIDE_NAMES = ("height", "width")
_MEASURED_SHAPE = (8, 128, 136, 3)  # of a video for a metric: large and long enough for every one that we know
_MEASURED_FPS = 8.0


class Subject:
    """A kind with its agent, which is built on first use.

    Args:
        folder: where its tiny models are made.
    """

    def __init__(self, kinds: Mapping[str, Kind], package: str, name: str, folder: Path) -> None:
        self.kinds = kinds
        self.package = package
        self.name = name
        self.kind = kinds[name]
        self._folder = folder

    @property
    def owner(self) -> str:
        """Beginning of messages about this kind."""
        return f"{self.package}: kind `{self.name}`"

    @cached_property
    def content(self) -> dict[str, Any]:
        """Options, as in a configuration, that load the tiny models; makes these."""
        return make_tiny(self.kinds, self.package, self.name, self._folder, None, ()) or {}

    @cached_property
    def interface(self) -> Interface:
        """What the kind tells with these options; an empty interface if it cannot be in a chain."""
        return self.kind.interface_of(self.kind.options.model_validate(self.content)) or Interface()

    @cached_property
    def agent(self) -> Agent:
        """The agent with the tiny models, on the CPU."""
        from mora_environment.server import AgentBuilder

        return AgentBuilder(self.kinds, self.package).make(
            self.name, self.content, torch.device("cpu"), source="tiny options"
        )

    def call(self, promise: Promise, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Call a promised method like a server, without gradient."""
        with torch.no_grad():
            return self._method(promise.method)(**arguments)

    def _method(self, name: str) -> Callable[..., dict[str, Any]]:
        method: Callable[..., dict[str, Any]] = getattr(self.agent, name)
        return method

    def arguments(self, promise: Promise, samples: Sequence[int] = (0, 1)) -> dict[str, Any]:
        """Arguments of a promised method for some of the samples."""
        if promise.method == "measure":
            return self.measured(self.dimensions[0], samples[0])
        return {name: self._argument(name, samples) for name in promise.arguments}

    @cached_property
    def dimensions(self) -> list[str]:
        """What a metric says that it measures; empty if it does not say."""
        told = self._method("describe")().get("dimensions")
        return [str(name) for name in told] if isinstance(told, list) else []

    def measured(self, dimension: str, sample: int = 0) -> dict[str, Any]:
        """Arguments of `measure`: a video whose content moves by a pixel a frame."""
        num_frames, height, width, _ = _MEASURED_SHAPE
        generator = torch.Generator().manual_seed(sample)
        picture = torch.randint(0, 256, (height // 8, width // 8, 3), dtype=torch.uint8, generator=generator)
        picture = picture.repeat_interleave(8, 0).repeat_interleave(8, 1)
        frames = torch.stack([picture.roll(frame, 1) for frame in range(num_frames)])
        words = "in oil" if dimension == "appearance_style" else ""
        return {"dimension": dimension, "frames": frames, "fps": _MEASURED_FPS, "prompt": PROMPTS[0], "words": words}

    def _argument(self, name: str, samples: Sequence[int]) -> Any:
        if name in self.interface.takes:
            return torch.stack([given(self._input_shape(name), sample) for sample in samples])
        by_name: dict[str, Callable[[], Any]] = {
            "z": lambda: self._z,
            "prompts": lambda: [PROMPTS[sample] for sample in samples],
            "prompt_keys": lambda: [self._prompt_keys[sample] for sample in samples],
            "seeds": lambda: [SEEDS[sample] for sample in samples],
            "target_keys": lambda: [self._target_keys[sample] for sample in samples],
            "seed": lambda: SEEDS[samples[0]],
            "text": lambda: "[Mod]",
            "new_token": lambda: False,
            "pixels": lambda: self.clip(samples[0]),
        }
        return by_name[name]()

    @cached_property
    def _z(self) -> torch.Tensor | None:
        if not self.interface.has_modulation:
            return None
        rows: torch.Tensor = self._method("modulation_rows")(text="[Mod]", new_token=False)["rows"]
        return rows.detach().clone()

    @cached_property
    def _prompt_keys(self) -> list[str]:
        if not self.interface.has_text:
            return list(PROMPTS)
        keys: list[str] = self._method("encode")(prompts=list(PROMPTS))["keys"]
        return keys

    @cached_property
    def _target_keys(self) -> list[str]:
        return [self._method("store_target")(pixels=self.clip(sample))["key"] for sample in range(len(SEEDS))]

    def clip(self, sample: int) -> torch.Tensor:
        """A target clip of the agent's size, uint8 (F, H, W, 3)."""
        told = self.interface
        height, width, num_frames = size_of(told.generates, *told.gives.values(), *told.takes.values())
        generator = torch.Generator().manual_seed(sample)
        return torch.randint(0, 256, (num_frames, height, width, 3), dtype=torch.uint8, generator=generator)

    def _input_shape(self, name: str) -> tuple[int, ...]:
        port = self.interface.takes[name]
        height, width, num_frames = size_of(port, *self.interface.gives.values(), self.interface.generates)
        return (3, height, width) if port.modality == "images" else (num_frames, 3, height, width)


def given(shape: Sequence[int], sample: int) -> torch.Tensor:
    """The input of a sample: float32 in [-1, 1]."""
    return torch.rand(tuple(shape), generator=torch.Generator().manual_seed(100 + sample)) * 2.0 - 1.0


def size_of(*ports: Port | None) -> tuple[int, int, int]:
    """Height, width and number of frames: of each the first that a port tells, or a small one."""
    height, width, num_frames = (
        next((getattr(port, name) for port in ports if port is not None and getattr(port, name)), default)
        for name, default in (*((name, _ANY_SIDE) for name in _SIDE_NAMES), ("num_frames", _ANY_NUM_FRAMES))
    )
    return height, width, num_frames
