"""Checks of the arguments that the agents of this environment share."""

from __future__ import annotations

from collections.abc import Sequence, Sized

import torch
from mora_runtime.errors import BadArgument
from torch import Tensor

from mora_env_svd.errors import InputError


def checked_frames(frames: Tensor | Sequence[Tensor], num_dimensions: int, what: str) -> Tensor:
    """Check uint8 pictures or clips. Raises: InputError naming the argument."""
    if not isinstance(frames, torch.Tensor) or frames.dtype != torch.uint8 or frames.ndim != num_dimensions:
        shown = f"{frames.dtype} {tuple(frames.shape)}" if isinstance(frames, torch.Tensor) else type(frames).__name__
        layout = "(B, H, W, 3)" if num_dimensions == 4 else "(B, N, H, W, 3)"
        raise InputError(f"{what}: expected uint8 {layout}, got {shown}")
    return frames


def check_requests(prompts: Sequence[str], seeds: Sequence[int], frames: Sized) -> None:
    """Check a batch of requests. Raises: InputError: it is empty, or the numbers of its parts differ."""
    if not prompts or not len(prompts) == len(seeds) == len(frames):
        raise InputError(
            f"expected a seed and given frames for each prompt, got {len(prompts)} prompts, {len(seeds)} seeds, "
            f"{len(frames)} clips of frames"
        )


def check_chain_batch(method: str, prompt_keys: Sequence[str], seeds: Sequence[int], images: Tensor) -> None:
    """Check a batch of a chain. Raises: BadArgument: it is empty, or the numbers of its parts differ."""
    if not seeds or not len(prompt_keys) == len(seeds) == len(images):
        raise BadArgument(
            f"{method}: expected as many seeds and images as prompts, at least one; got "
            f"{len(prompt_keys)} prompts, {len(seeds)} seeds, {len(images)} images"
        )


def num_gradient_steps(option: int | str | None, num_inference_steps: int) -> int:
    """The number of last steps of `forward` that have a gradient, from the option `gradient_steps`.

    Raises:
        BadArgument: the option is not set, so there is no `forward`.
    """
    if option is None:
        raise BadArgument("forward: expected the option `gradient_steps`, which says how much has a gradient")
    return num_inference_steps if isinstance(option, str) else option
