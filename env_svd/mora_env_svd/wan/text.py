"""Prompts to rows of UMT5, as diffusers' pipeline computes them.

The encoder sees a text padded to its longest length, with an attention mask; the rows of the padding are dropped, and
the model sees zeros there. Rows are stored without these zeros.
"""

from __future__ import annotations

import html
import re
import unicodedata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mora_env_svd.files_state import files_state
from mora_env_svd.text_rows import TextRows, num_content_tokens

_STRAIGHT = str.maketrans({"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"'})


def cleaned(text: str) -> str:
    """A prompt as Wan's tokenizer gets it: HTML entities are resolved, each run of white space becomes one space.

    The pipeline also repairs text with the package ftfy. Of that, this does what concerns text that was decoded well:
    straight quotation marks and composed characters (NFC). It does not guess wrong encodings.
    """
    composed = unicodedata.normalize("NFC", text.translate(_STRAIGHT))
    return re.sub(r"\s+", " ", html.unescape(html.unescape(composed))).strip()


class Umt5Text(TextRows):
    """Texts to rows (L, D), L being the text's number of tokens with its end.

    Args:
        model: folder or Hub id with `tokenizer/` and `text_encoder/`.
        max_length: tokens; a longer text is cut there.
        folder: of the job, for rows that its other processes can use; None = rows stay in this process.
    """

    def __init__(
        self, model: str, dtype: torch.dtype, device: torch.device, max_length: int, *, folder: Path | None = None
    ) -> None:
        identity = repr((model, dtype, device.type, max_length, files_state(Path(model) / "text_encoder")))
        super().__init__(model, identity, device, folder=folder)
        self._dtype = dtype
        self._max_length = max_length
        self._tokenizer: Any = None

    @torch.no_grad()
    def _computed(self, text: str) -> Tensor:
        self._load()
        found = self._tokenizer(
            cleaned(text), padding="max_length", max_length=self._max_length, truncation=True, return_tensors="pt"
        )
        ids, mask = (tensor.to(self._device) for tensor in (found.input_ids, found.attention_mask))
        rows: Tensor = self._model(ids, mask).last_hidden_state[0, : int(mask.sum())]
        return rows.cpu()

    def _computed_content(self, text: str) -> Tensor:
        self._load()
        num_tokens = num_content_tokens(self._tokenizer, cleaned(text))
        return self._computed(text)[:num_tokens].float()  # the end token follows

    @torch.no_grad()
    def _computed_new_token(self) -> Tensor:
        self._load()
        table = self._model.get_input_embeddings()
        end = table(torch.tensor([self._tokenizer.eos_token_id], device=self._device))
        inputs = torch.cat([table.weight.mean(dim=0, keepdim=True).to(end), end])
        rows: Tensor = self._model(inputs_embeds=inputs[None]).last_hidden_state[0, :1]
        return rows.float().cpu()

    def _loaded_model(self) -> Any:
        from transformers import AutoTokenizer, UMT5EncoderModel  # slow to import, not needed if all is cached

        if self._tokenizer is None:
            self._tokenizer = AutoTokenizer.from_pretrained(self._source, subfolder="tokenizer")
        return UMT5EncoderModel.from_pretrained(
            self._source, subfolder="text_encoder", dtype=self._dtype, use_safetensors=True
        )
