"""Samples before and after training: videos of the chain for a few prompts, as mp4 and one contact sheet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from mora_data.clips import Clip, contact_sheet, write_video
from mora_data.settings import ClipShape
from mora_runtime import Client, TensorRef
from mora_runtime.errors import ProtocolError

from mora_trainer.chain import IMAGE, VIDEO


class Sampler:
    """Generates videos with the agents' current weights.

    Args:
        prompts: text of each prompt, and its key in each server.
        targets: the training clip of each prompt, shown for comparison.
    """

    def __init__(
        self,
        clients: dict[str, Client],
        prompts: list[tuple[str, str, str]],
        targets: list[Clip],
        *,
        shape: ClipShape,
        seed: int,
        folder: Path,
        deadline_s: float,
    ) -> None:
        self._clients = clients
        self._prompts = prompts
        self._shape = shape
        self._seed = seed
        self._folder = folder
        self._deadline_s = deadline_s
        self._rows: list[list[tuple[str, Clip]]] = [  # by prompt, so that the rows of a prompt are adjacent
            [(f"target: {text}", clip)] for (text, _, _), clip in zip(prompts, targets, strict=True)
        ]

    def take(self, label: str, embeddings: dict[str, torch.Tensor]) -> list[Path]:
        """Generate one video per prompt; write `<label>-<n>.mp4` and the contact sheet of all rows so far."""
        written: list[Path] = []
        for number, (text, image_key, video_key) in enumerate(self._prompts):
            clip = self._generate(image_key, video_key, embeddings)
            self._rows[number].append((f"{label}: {text}", clip))
            written.append(self._folder / f"{label}-{number}.mp4")
            write_video(written[-1], clip, self._shape.fps)
        sheet = self._folder / "contact-sheet.png"
        contact_sheet([row for rows in self._rows for row in rows]).save(sheet)
        return [*written, sheet]

    def _generate(self, image_key: str, video_key: str, embeddings: dict[str, torch.Tensor]) -> Clip:
        arguments: dict[str, Any] = {
            "z": embeddings.get(IMAGE),
            "prompt_keys": [image_key],
            "seeds": [self._seed],
            "frame_keys": None,
        }
        images = self._clients[IMAGE].call(IMAGE, "render", arguments, deadline_s=self._deadline_s).values["images"]
        if not isinstance(images, TensorRef):
            raise ProtocolError("image.render: expected a tensor `images`")
        arguments = {"z": embeddings.get(VIDEO), "prompt_key": video_key, "image": images, "seed": self._seed}
        frames = self._clients[VIDEO].call(VIDEO, "animate", arguments, deadline_s=self._deadline_s).values["frames"]
        if not isinstance(frames, TensorRef):
            raise ProtocolError("video.animate: expected a tensor `frames`")
        return np.array(frames.tensor().cpu().numpy(), dtype=np.uint8)
