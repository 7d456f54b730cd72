"""Converts keep/drop masks to additive attention biases over keys.

A bias has shape (B, 1, 1, keys) and broadcasts over heads and queries, so no tensor has the square of the sequence
length. If nothing is dropped there is no bias at all.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from mora_env_opensora.models.errors import InputError

# Finite, as upstream, so that a row with every key dropped gives the softmax of its scores instead of NaN.
_DROPPED = -10000.0


def video_bias(mask_BTHW: Tensor | None, latents_BCTHW: Tensor, patch_size: int, dtype: torch.dtype) -> Tensor | None:
    """Bias (B, 1, 1, N) for a video mask (B, T, H, W), 1 keep / 0 drop, or None when every token is kept.

    A token is kept if any latent cell of its patch is kept. None means that all cells are kept.

    Raises:
        InputError: the mask's shape differs from the latents'.
    """
    if mask_BTHW is None:
        return None
    batch, _, *sizes = latents_BCTHW.shape
    expected, got = (batch, *sizes), tuple(mask_BTHW.shape)
    if got != expected:
        raise InputError(f"attention_mask: expected (B, T, H, W) = {expected} like hidden_states, got {got}")
    kept = F.max_pool2d(mask_BTHW.float(), kernel_size=patch_size).flatten(1) != 0
    if kept.all():
        return None
    return torch.zeros(kept.shape, dtype=dtype, device=kept.device).masked_fill(~kept, _DROPPED)[:, None, None]


def text_bias(mask_BL: Tensor, dtype: torch.dtype, device: torch.device | None = None) -> Tensor | None:
    """Bias (B, 1, 1, L) for a text mask (B, L), 1 keep / 0 drop, or None when every row is kept.

    Unlike the video mask it is not rounded to 0 or 1: a value in between weakens a row.

    Args:
        device: of the bias; None = the mask's. Whether there is a bias is decided where the mask is, so with a mask on
            the CPU the decision does not wait for a GPU.
    """
    bias = (1 - mask_BL.to(dtype)) * _DROPPED
    return bias[:, None, None].to(device) if bias.any() else None
