"""Attention to text and picture where modulation rows follow the text.

The attention of diffusers takes the last 512 rows for text and all others for the picture, so it cannot have rows after
the text. This one takes a fixed number of rows for the picture. Without modulation rows both compute the same bits.
"""

from __future__ import annotations

from typing import Any

from diffusers.models.attention_dispatch import dispatch_attention_fn
from diffusers.models.transformers.transformer_wan import WanAttention, WanTransformer3DModel
from torch import Tensor


class PictureAndTextAttention:
    """The processor of a block's second attention.

    Args:
        num_picture_rows: the first rows of the context, which show the given pictures.
    """

    def __init__(self, num_picture_rows: int) -> None:
        self._num_picture_rows = num_picture_rows

    def __call__(
        self,
        attn: WanAttention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """`hidden_states` (B, N, D) mixed with the context `encoder_hidden_states` (B, rows, D)."""
        picture, text = (
            encoder_hidden_states[:, : self._num_picture_rows],
            encoder_hidden_states[:, self._num_picture_rows :],
        )
        query = _heads(attn, attn.norm_q(attn.to_q(hidden_states)))
        of_text = _mixed(query, _heads(attn, attn.norm_k(attn.to_k(text))), _heads(attn, attn.to_v(text)))
        picture_key = _heads(attn, attn.norm_added_k(attn.add_k_proj(picture)))
        of_picture = _mixed(query, picture_key, _heads(attn, attn.add_v_proj(picture)))
        found: Tensor = attn.to_out[1](attn.to_out[0](of_text + of_picture))
        return found


def attend_to_picture_and_text(model: WanTransformer3DModel, num_picture_rows: int) -> None:
    """Set the processor in every block of a Wan transformer."""
    for block in model.blocks:
        block.attn2.set_processor(PictureAndTextAttention(num_picture_rows))


def _heads(attn: WanAttention, rows: Tensor) -> Tensor:
    """(B, N, D) -> (B, N, heads, D / heads)."""
    return rows.unflatten(2, (attn.heads, -1))


def _mixed(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    found: Any = dispatch_attention_fn(query, key, value)
    mixed: Tensor = found.flatten(2, 3).type_as(query)
    return mixed
