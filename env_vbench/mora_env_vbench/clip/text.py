"""CLIP's text encoder."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mora_env_vbench.clip.residual_block import FullNorm, Transformer
from mora_env_vbench.clip.sizes import TextSizes


class ClipText(nn.Module):
    """Tokens (N, length) to features (N, embed) of any length. The last token has the largest number."""

    def __init__(self, sizes: TextSizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.token_embedding = nn.Embedding(sizes.num_words, sizes.width)
        self.positional_embedding = nn.Parameter(torch.empty(sizes.length, sizes.width))
        self.text_projection = nn.Parameter(torch.empty(sizes.width, sizes.embed))
        self.transformer = Transformer(sizes.width, sizes.num_layers, sizes.num_heads, is_causal=True)
        self.ln_final = FullNorm(sizes.width)

    def encode(self, tokens: Tensor) -> Tensor:
        x = self.token_embedding(tokens) + self.positional_embedding
        x = self.ln_final(self.transformer(x))
        ends = x[torch.arange(len(x), device=x.device), tokens.argmax(dim=-1)]
        found: Tensor = ends @ self.text_projection
        return found
