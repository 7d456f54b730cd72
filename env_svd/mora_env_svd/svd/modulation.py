"""What z starts from: rows of a text where there is a text encoder, else what the options declare."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from mora_env_svd.clip_text import TextEncoder
from mora_env_svd.errors import ConfigError
from mora_env_svd.svd.picture_encoder import PictureEncoder

_SEED = 0


class ModulationStart:
    """First values of z, as wide as the image embeddings.

    Args:
        text: a text encoder, or None.
        kind: what z starts from without one.
        num_rows: of z without one.
    """

    def __init__(
        self,
        encoder: PictureEncoder,
        text: TextEncoder | None,
        kind: Literal["grey_image", "random"],
        num_rows: int,
    ) -> None:
        self._encoder = encoder
        self._text = text
        self._kind = kind
        self._num_rows = num_rows

    def rows(self, text: str, *, new_token: bool) -> Tensor:
        """float32 (rows, D). Without a text encoder, the text has no effect, and a new token is one random row.

        Raises:
            ConfigError: the text encoder has another width than the image embeddings.
        """
        if self._text is not None:
            return self._of_text(self._text, text, new_token=new_token)
        greys = self._encoder.grey_embeddings(1 if new_token else self._num_rows)
        if new_token or self._kind == "random":
            return self._random(greys)
        return greys

    def _of_text(self, encoder: TextEncoder, text: str, *, new_token: bool) -> Tensor:
        rows = encoder.new_token_row() if new_token else encoder.content_rows(text)
        encoder.unload()  # it has nothing else to do
        width = self._encoder.grey_embeddings(1).shape[-1]
        if rows.shape[-1] != width:
            raise ConfigError(
                f"text_encoder: its rows have {rows.shape[-1]} channels, expected {width}, those of the image "
                "embeddings; give the text encoder of the same CLIP"
            )
        return rows

    @staticmethod
    def _random(like: Tensor) -> Tensor:
        """Rows of the same norms in random directions; always the same ones."""
        drawn = torch.randn(like.shape, generator=torch.Generator().manual_seed(_SEED))
        return drawn * (like.norm(dim=1, keepdim=True) / drawn.norm(dim=1, keepdim=True))
