"""What a server's answer must be. A server may run an agent of any author, so every answer is checked."""

from __future__ import annotations

from typing import Any

from mora_data.reading.fitting import Clip
from mora_runtime.errors import AgentFailed

from mora_launch.config.capability import PICTURES

_PICTURES = "uint8 (B, H, W, 3)"
_CLIPS = "uint8 (B, F, H, W, 3)"


def check_samples(value: object, capability: str, num_samples: int, what: str) -> None:
    """Refuse the result of a call that is not one picture or clip for each sample.

    Args:
        what: names agent and method in the error.

    Raises:
        AgentFailed: it says what was expected and what came.
    """
    _check(value, _PICTURES if capability in PICTURES else _CLIPS, num_samples, what)


def part_of(values: dict[str, Any], num_samples: int, what: str) -> tuple[int, int, Clip]:
    """Return the sample, the index of the first frame, and the frames of a part of a result.

    Raises:
        AgentFailed: as for `check_samples`.
    """
    from mora_runtime.tensors.arrays import to_pixels

    sample, start, frames = values.get("sample"), values.get("start"), values.get("outputs")
    if type(sample) is not int or type(start) is not int or not 0 <= sample < num_samples or start < 0:
        raise AgentFailed(f"{what}: expected a part of one of {num_samples} samples, from a frame on")
    _check(frames, "uint8 (F, H, W, 3)", None, what)
    return sample, start, to_pixels(frames, what)


def _check(value: object, layout: str, num_samples: int | None, what: str) -> None:
    import torch
    from mora_runtime import TensorRef

    if not isinstance(value, torch.Tensor | TensorRef):
        raise AgentFailed(f"{what}: expected `outputs`, {layout}, got {type(value).__name__}")
    shape = tuple(value.shape)
    is_frames = value.dtype == torch.uint8 and len(shape) == layout.count(",") + 1 and shape[-1:] == (3,)
    if not is_frames or 0 in shape:
        raise AgentFailed(f"{what}: expected `outputs`, {layout}, got {value.dtype} {shape}")
    if num_samples is not None and shape[0] != num_samples:
        raise AgentFailed(f"{what}: expected {num_samples} samples, one for each prompt, got {shape[0]}")
