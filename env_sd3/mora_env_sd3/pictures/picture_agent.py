"""The methods of an image agent that do not depend on its model. No access to sockets."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Protocol

import torch
from mora_environment.model_folder import config_of
from mora_runtime import Agent, cancelled_samples, empty, remote, report_step
from mora_runtime.errors import BadArgument

from mora_env_sd3.image_generator import GuidedText, ImageGenerator, PictureRequest
from mora_env_sd3.pictures.text_store import TextStore

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_NUM_SERVED_PROMPTS = 256  # number of cached embeddings; a server that runs for days must not keep them all


class PictureSize(Protocol):
    """The part of a model's settings that the shape of its pictures depends on."""

    @property
    def height(self) -> int: ...
    @property
    def width(self) -> int: ...


class PictureAgent(Agent):
    """An image agent without `forward` and capabilities, which a subclass has.

    Args:
        module: the model that trains.
        texts: encodes prompts.
        generator: makes pictures for requests.
        negative_prompt: for the other half of guidance, where a request names none.
    """

    size_multiple = 8  # of height and width

    def __init__(
        self,
        module: torch.nn.Module,
        texts: TextStore[Any],
        generator: ImageGenerator[Any, Any, Any],
        negative_prompt: str,
    ) -> None:
        self._module = module
        self._encoders = texts
        self._generator = generator
        self._negative_prompt = negative_prompt
        self._negative: Any = None
        self._embedding = lru_cache(_NUM_SERVED_PROMPTS)(texts.embed)

    def module(self) -> torch.nn.Module:
        """The model that denoises; autoencoder and text encoders never train."""
        return self._module

    def model_config(self) -> dict[str, Any]:
        """The model's config.json, as diffusers writes it."""
        return config_of(self._module)

    @remote
    def encode(self, prompts: list[str]) -> dict[str, Any]:
        """Keys of the prompts' embeddings, which stay in this process."""
        self._negative_embedding()  # computed while the encoders are loaded anyway
        return {"keys": self._encoders.encode(prompts)}

    @remote
    def unload_text_encoder(self) -> dict[str, Any]:
        """Free the text encoders; a new prompt loads them again."""
        self._encoders.unload()
        return {}

    def _negative_embedding(self) -> Any:
        if self._negative is None:
            self._negative = self._encoders.get(self._encoders.encode([self._negative_prompt])[0])
        return self._negative

    def embeddings(self, keys: list[str]) -> tuple[list[Any], Any]:
        """The embeddings of these keys, and the one of the negative prompt."""
        return [self._encoders.get(key) for key in keys], self._negative_embedding()

    def _guided(self, prompt: str, negative_prompt: str | None) -> GuidedText:
        """The embeddings for a request, where a negative prompt of None is the agent's own."""
        negative = self._negative_embedding() if negative_prompt is None else self._embedding(negative_prompt)
        return GuidedText(self._embedding(prompt), negative)

    def _check_batch(
        self, prompts: list[str], seeds: list[int], settings: PictureSize, images: torch.Tensor | None = None
    ) -> None:
        """Check what a capability got. Raises: BadArgument."""
        if not prompts or len(prompts) != len(seeds) or (images is not None and len(images) != len(seeds)):
            raise BadArgument(f"expected as many seeds (and images) as prompts, got {len(seeds)} and {len(prompts)}")
        multiple = self.size_multiple
        if settings.height % multiple or settings.width % multiple:
            raise BadArgument(f"size: expected multiples of {multiple}, got {settings.width}x{settings.height}")

    def _made(
        self,
        requests: Sequence[PictureRequest[Any]],
        settings: PictureSize,
        z: torch.Tensor | None,
        *,
        strength: float = 1.0,
    ) -> dict[str, Any]:
        """`outputs` uint8 (B, H, W, 3) of a capability. Rows of cancelled samples are zero."""
        made = self._generator.generate(
            requests, settings, strength=strength, z=z, on_step=report_step, given_up=cancelled_samples
        )
        outputs = empty((len(requests), settings.height, settings.width, 3), torch.uint8)
        for index in range(len(requests)):
            outputs[index] = made.get(index, torch.zeros((), dtype=torch.uint8))
        return {"outputs": outputs}


def checked_pixels(images: torch.Tensor) -> list[torch.Tensor]:
    """Given uint8 pictures (B, H, W, 3) as B float32 pictures (3, H, W) in [-1, 1]. Raises: BadArgument."""
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[-1] != 3:
        raise BadArgument(f"images: expected uint8 (B, H, W, 3), got {images.dtype} {tuple(images.shape)}")
    return list(images.permute(0, 3, 1, 2).float() / 127.5 - 1.0)
