"""The judge agent: a multimodal model that answers questions about several videos. It has no access to sockets."""

from __future__ import annotations

from itertools import accumulate, pairwise
from typing import Any

import torch
from mora_runtime import Agent, remote
from mora_runtime.errors import BadArgument
from PIL import Image

from mora_env_sd3.multimodal import MultimodalModel
from mora_env_sd3.options import MultimodalOptions


class JudgeAgent(Agent):
    """Answers a text about frames with a text.

    Args:
        options: checked options, with a model folder or Hub id.
    """

    def __init__(self, options: MultimodalOptions, device: torch.device) -> None:
        self._options = options
        self.model = MultimodalModel(options.model, getattr(torch, options.dtype), device)

    @remote(host_arguments=["frames"])
    def answer(
        self, frames: torch.Tensor, num_frames: list[int], question: str, later: list[str] | None = None
    ) -> dict[str, Any]:
        """Ask the model about some videos; returns `text`.

        Args:
            frames: uint8 (N, H, W, 3), the frames of all videos one after the other.
            num_frames: number of frames of each video, N in total.
            question: the first message, to which the videos belong.
            later: the model's answer to it and the following messages, alternately; ends with a message to the model.
        """
        if frames.dtype != torch.uint8 or frames.ndim != 4 or frames.shape[-1] != 3:
            raise BadArgument(f"frames: expected uint8 (N, H, W, 3), got {frames.dtype} {tuple(frames.shape)}")
        if not num_frames or min(num_frames) < 1 or sum(num_frames) != len(frames):
            raise BadArgument(f"num_frames: expected 1 or more per video, {len(frames)} in total, got {num_frames}")
        if len(later or []) % 2:
            raise BadArgument(f"later: expected pairs of an answer and a message, got {len(later or [])} texts")
        messages = conversation(question, num_frames, later or [])
        pictures = [Image.fromarray(frame) for frame in frames.numpy()]
        return {"text": self.model.answer(messages, pictures, self._options.max_new_tokens)}


def conversation(question: str, num_frames: list[int], later: list[str]) -> list[dict[str, Any]]:
    """The messages of a chat. The text numbers each video's pictures, because some templates put all pictures first."""
    content: list[dict[str, Any]] = [_text(question)]
    for number, (start, end) in enumerate(pairwise([0, *accumulate(num_frames)]), start=1):
        content += [_text(f"\nVideo {number}, pictures {start + 1} to {end}:"), *[{"type": "image"}] * (end - start)]
    turns = [{"role": ("assistant", "user")[at % 2], "content": [_text(text)]} for at, text in enumerate(later)]
    return [{"role": "user", "content": content}, *turns]


def _text(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}
