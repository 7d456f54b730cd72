"""A toy captioner, which names the brightest channel, and a toy text encoder, which counts letters."""

from __future__ import annotations

import string
from typing import Any

import torch
from mora_runtime import Agent, remote

from tests.toy_agents.options import CaptionerOptions, EncoderOptions

_COLOURS = ("red", "green", "blue")


def letter_counts(text: str) -> list[float]:
    """How often each letter is in a text."""
    return [float(text.lower().count(letter)) for letter in string.ascii_lowercase]


class ToyCaptioner(Agent):
    """Answers with the number of frames and the colour of the last one."""

    def __init__(self, options: CaptionerOptions, device: torch.device) -> None:
        pass

    @remote(host_arguments=["frames"])
    def answer(
        self, frames: torch.Tensor, num_frames: list[int], question: str, later: list[str] | None = None
    ) -> dict[str, Any]:
        colour = _COLOURS[int(frames[-1].float().mean(dim=(0, 1)).argmax())]
        return {"text": f" {num_frames[0]} frames that turn {colour}\n"}


class ToyEncoder(Agent):
    """Counts letters."""

    def __init__(self, options: EncoderOptions, device: torch.device) -> None:
        pass

    @remote
    def embed(self, texts: list[str]) -> dict[str, Any]:
        return {"embeddings": torch.tensor([letter_counts(text) for text in texts])}
