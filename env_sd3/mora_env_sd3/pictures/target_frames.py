"""First frames of target clips by content key, for the own loss of an image agent."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from mora_runtime.errors import BadArgument
from mora_training.tensor_files import TensorFiles


class TargetFrames:
    """Frames of one size, uint8 on the CPU. At most one for each sample of the data set: the key tells the content.

    Args:
        folder: of the job, where its other processes and a restart find the frames; None = they stay in memory.
    """

    def __init__(self, height: int, width: int, folder: Path | None = None) -> None:
        self._height = height
        self._width = width
        self._frames: dict[str, torch.Tensor] = {}
        self._files = None if folder is None else TensorFiles(folder, {"frame": (height, width, 3)})

    def store(self, pixels: torch.Tensor) -> str:
        """Store the first frame of a clip, uint8 (F, H, W, 3); returns its key.

        Raises:
            BadArgument: the clip has another shape.
        """
        size = (self._height, self._width, 3)
        if pixels.dtype != torch.uint8 or not len(pixels) or tuple(pixels.shape[1:]) != size:
            expected = f"uint8 (F >= 1, {self._height}, {self._width}, 3)"
            raise BadArgument(f"pixels: expected {expected}, got {pixels.dtype} {tuple(pixels.shape)}")
        frame = pixels[0].cpu()
        key = hashlib.sha256(f"{size}".encode() + frame.numpy().tobytes()).hexdigest()
        if not self.has(key):
            self._frames[key] = frame.clone()  # a copy, because the caller reuses its memory
            if self._files is not None:
                self._files.write(key, {"frame": frame.to(torch.float16)})  # exact for whole numbers up to 2048
        return key

    def has(self, key: str) -> bool:
        """Whether the frame is here or in the job's folder."""
        if key not in self._frames and self._files is not None:
            found = self._files.read(key)
            if found is not None:
                self._frames[key] = found["frame"].to(torch.uint8)
        return key in self._frames

    def pictures(self, keys: list[str], device: torch.device) -> torch.Tensor:
        """The frames of these keys, float32 (B, 3, H, W) in [-1, 1].

        Raises:
            BadArgument: a key is unknown.
        """
        for key in keys:
            if not self.has(key):
                raise BadArgument(f"unknown target key `{key[:40]}`; expected one that `store_target` returned")
        return torch.stack([self._frames[key].to(device).permute(2, 0, 1).float() / 127.5 - 1.0 for key in keys])
