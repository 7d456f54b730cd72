"""Texts of requests, whose rows are cached up to a limit, and the negative prompt of the options, which is stored."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from mora_runtime import check_cancelled
from torch import Tensor

from mora_env_svd.text_rows import TextRows

_NUM_SERVED_PROMPTS = 256  # number of cached encoder rows; a server that runs for days must not keep them all


class RequestedTexts:
    """Prompts and negative prompts to rows.

    Args:
        negative_prompt: of the options.
    """

    def __init__(self, encoder: TextRows, negative_prompt: str) -> None:
        self._encoder = encoder
        self._negative_prompt = negative_prompt
        self._negative_key: str | None = None
        self._rows_of = lru_cache(_NUM_SERVED_PROMPTS)(encoder.rows_of)
        self._rows_of_negative = lru_cache(_NUM_SERVED_PROMPTS)(encoder.rows_of_negative)

    def rows(self, prompts: Sequence[str], negative_prompt: str | None) -> tuple[list[Tensor], Tensor]:
        """Rows of each prompt, and of the negative prompt; None = that of the options."""
        texts = []
        for prompt in prompts:
            check_cancelled()
            texts.append(self._rows_of(prompt))
        return texts, self.negative() if negative_prompt is None else self._rows_of_negative(negative_prompt)

    def negative(self) -> Tensor:
        """Rows of the negative prompt of the options."""
        if self._negative_key is None:
            self._negative_key = self._encoder.encode_negative(self._negative_prompt)
        return self._encoder.rows(self._negative_key)
