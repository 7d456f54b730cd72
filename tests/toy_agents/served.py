"""What toy agents can do for people's requests: pictures and clips of any size, step by step, in milliseconds."""

from __future__ import annotations

import hashlib
import time
from abc import abstractmethod
from typing import Any

import torch
from mora_runtime import Agent, cancelled_samples, empty, remote, report_step
from mora_runtime.errors import BadArgument

from tests.toy_agents.options import NUM_FRAMES, SIDE

STEP_S = 0.002  # a step takes time and no processor, so that requests of many steps meet deaths and cancellations
NUM_STEPS = 4


class ServedToy(Agent):
    """Common part: steps, and pictures that depend on model, z, prompt, seed and the given picture."""

    @abstractmethod
    def made(self, z: torch.Tensor | None, seeds: list[int], images: torch.Tensor | None) -> torch.Tensor:
        """Pictures (B, 3, SIDE, SIDE) from pictures or noise."""

    def describe_with(self, num_frames: int) -> dict[str, Any]:
        """The answer of `describe`."""
        return {
            "model": "toy",
            "height": SIDE,
            "width": SIDE,
            "num_frames": num_frames,
            "size_multiple": 16,
            "largest_side": 4 * SIDE,
            "num_inference_steps": NUM_STEPS,
            "least_num_inference_steps": 1,
            "guidance_scale": 1.0,
            "takes_negative_prompt": True,
        }

    def take_steps(self, num_steps: int | None, num_samples: int) -> None:
        """Take the steps of a call; those that are left are skipped once every sample is cancelled."""
        whole = NUM_STEPS if num_steps is None else num_steps
        report_step(0, whole)
        for step in range(whole):
            if len(cancelled_samples()) == num_samples:
                return
            time.sleep(STEP_S)
            report_step(step + 1, whole)

    @torch.no_grad()
    def drawn(
        self,
        prompts: list[str],
        seeds: list[int],
        z: torch.Tensor | None,
        images: torch.Tensor | None,
        size: tuple[int, int],
        negative_prompt: str | None = None,
    ) -> torch.Tensor:
        """Pictures (B, 3, H, W), one after the other, because a batch may have other bits than a sample alone."""
        if not prompts or len(prompts) != len(seeds):
            raise BadArgument(f"expected as many seeds as prompts, got {len(seeds)} and {len(prompts)}")
        found = []
        for index, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True)):
            given = None if images is None else resized(images[index : index + 1], (SIDE, SIDE))
            text = prompt if negative_prompt is None else f"{prompt} without {negative_prompt}"
            tint = hashlib.sha256(text.encode()).digest()[0] / 255.0 - 0.5
            found.append(resized(self.made(z, [seed], given) + tint, size))
        return torch.cat(found)


class ServesPictures(ServedToy):
    """Capabilities of agents that make pictures."""

    @remote
    def describe(self) -> dict[str, Any]:
        return self.describe_with(1)

    @remote
    def text_to_image(
        self,
        prompts: list[str],
        seeds: list[int],
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        negative_prompt: str | None = None,
        z: torch.Tensor | None = None,
    ) -> dict[str, Any]:
        self.take_steps(num_inference_steps, len(prompts))
        return {
            "outputs": to_pixels(self.drawn(prompts, seeds, z, None, (height or SIDE, width or SIDE), negative_prompt))
        }

    @remote
    def image_to_image(
        self,
        prompts: list[str],
        seeds: list[int],
        images: torch.Tensor,
        strength: float,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        negative_prompt: str | None = None,
        z: torch.Tensor | None = None,
    ) -> dict[str, Any]:
        self.take_steps(num_inference_steps, len(prompts))
        given = from_pixels(images)
        drawn = self.drawn(prompts, seeds, z, given, (images.shape[1], images.shape[2]), negative_prompt)
        return {"outputs": to_pixels(given + strength * (drawn - given))}


class ServesEdits(ServedToy):
    """Capability of agents that change a picture by an instruction."""

    @remote
    def describe(self) -> dict[str, Any]:
        return self.describe_with(1)

    @remote
    def edit_image(
        self,
        prompts: list[str],
        seeds: list[int],
        images: torch.Tensor,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        negative_prompt: str | None = None,
        z: torch.Tensor | None = None,
    ) -> dict[str, Any]:
        self.take_steps(num_inference_steps, len(prompts))
        size = (images.shape[1], images.shape[2])
        return {"outputs": to_pixels(self.drawn(prompts, seeds, z, from_pixels(images), size, negative_prompt))}


class ServesClips(ServedToy):
    """Capabilities of agents that make clips: from a given picture to the one that the model makes of it."""

    @remote
    def describe(self) -> dict[str, Any]:
        return self.describe_with(NUM_FRAMES)

    @remote
    def image_to_video(
        self,
        prompts: list[str],
        seeds: list[int],
        images: torch.Tensor,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        negative_prompt: str | None = None,
        z: torch.Tensor | None = None,
    ) -> dict[str, Any]:
        self.take_steps(num_inference_steps, len(prompts))
        return {"outputs": to_pixels(self._clips(prompts, seeds, z, from_pixels(images), negative_prompt))}

    @remote
    def extend_video(
        self,
        prompts: list[str],
        seeds: list[int],
        videos: torch.Tensor,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        negative_prompt: str | None = None,
        z: torch.Tensor | None = None,
    ) -> dict[str, Any]:
        self.take_steps(num_inference_steps, len(prompts))
        return {
            "outputs": to_pixels(self._clips(prompts, seeds, z, from_pixels(videos[:, -1]), negative_prompt)[:, 1:])
        }

    @remote
    def connect_videos(
        self,
        prompts: list[str],
        seeds: list[int],
        images: torch.Tensor,
        images_after: torch.Tensor,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        negative_prompt: str | None = None,
        z: torch.Tensor | None = None,
    ) -> dict[str, Any]:
        self.take_steps(num_inference_steps, len(prompts))
        return {"outputs": to_pixels(clips(from_pixels(images), from_pixels(images_after)))}

    def _clips(
        self,
        prompts: list[str],
        seeds: list[int],
        z: torch.Tensor | None,
        images: torch.Tensor,
        negative_prompt: str | None,
    ) -> torch.Tensor:
        height, width = images.shape[-2:]
        return clips(images, self.drawn(prompts, seeds, z, images, (height, width), negative_prompt))


def clips(first: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
    """(B, F, 3, H, W) from the first pictures to the last ones."""
    shares = torch.linspace(0.0, 1.0, NUM_FRAMES).view(1, -1, 1, 1, 1)
    return first[:, None] * (1.0 - shares) + last[:, None] * shares


def resized(images: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Pictures (B, 3, H, W) of another size."""
    return torch.nn.functional.interpolate(images, size=size)


def from_pixels(images: torch.Tensor) -> torch.Tensor:
    """(..., 3, H, W) in [-1, 1] from uint8 (..., H, W, 3)."""
    return images.movedim(-1, -3).float() / 127.5 - 1.0


def to_pixels(images: torch.Tensor) -> torch.Tensor:
    """uint8 (..., H, W, 3) from (..., 3, H, W) in [-1, 1], in memory that the caller can map."""
    pixels = images.movedim(-3, -1)
    outputs = empty(tuple(pixels.shape), torch.uint8)
    return outputs.copy_(((pixels + 1.0) * 127.5).round().clamp(0, 255))
