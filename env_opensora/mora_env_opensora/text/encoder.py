"""The mT5 encoder: loaded when a text is not cached, and unloaded to make room for training.

A text is encoded alone and unpadded, so its rows do not depend on other texts. Upstream pads to the maximal length with
a mask, which gives the same rows, and the transformer gives padding a weight of exactly 0. A text of more than
`max_length` tokens is cut, with `</s>` at the end and a warning in the log. An empty text is only `</s>`.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from mora_environment.file_digests import FileDigests
from mora_environment.weights.converted_folder import converted_weights
from torch import Tensor

from mora_env_opensora.model_source import resolve_folder
from mora_env_opensora.models import InputError, WeightsFileError
from mora_env_opensora.text.cache import TextCache
from mora_env_opensora.text.cleaning import clean_caption, lower_caption
from mora_env_opensora.weights_identity import digests_of, weights_lines

_log = logging.getLogger(__name__)
_WEIGHT_SUFFIXES = (".safetensors", ".bin")


class TextEncoder:
    """Texts to rows (L, d) of the encoder's last hidden state; </s> included."""

    def __init__(
        self,
        folder: str | Path,
        *,
        tokenizer: str | Path | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        max_length: int = 512,
        clean: bool = True,
        cache: TextCache | None = None,
        cache_outlives_job: bool = True,
    ) -> None:
        """Load nothing yet.

        Args:
            folder: local folder, or a Hub id in the local Hub cache. Of a Hub id, weights that were converted for this
               dtype are used instead of the downloaded ones.
            tokenizer: the tokenizer's folder; by default `folder` itself, or `tokenizer/` next to it.
            clean: whether `encode` cleans captions; otherwise it only lowercases and strips them.
            cache_outlives_job: of a cache on disk: identify the weights by every byte. False: by size, time and inode.

        Raises:
            WeightsFileError: encoder or tokenizer is missing.
        """
        if max_length < 2:
            raise InputError(f"max_length: expected at least 2 (one token and </s>), got {max_length}")
        found = resolve_folder(folder)
        self._folder = converted_weights(str(folder), str(dtype).removeprefix("torch.")) or found
        self._tokenizer_folder = _tokenizer_folder(found, tokenizer)
        self._dtype = dtype
        self._device = device
        self._max_length = max_length
        self._prepare: Callable[[str], str] = clean_caption if clean else lower_caption
        self._cache = cache or TextCache(None)
        digests = digests_of(self._cache.folder) if cache_outlives_job else None
        self._identity = _fingerprint(self._folder, self._tokenizer_folder, dtype, max_length, digests)
        self._model: Any = None
        self._tokenizer: Any = None

    @property
    def loaded(self) -> bool:
        return self._model is not None

    def encode(self, text: str) -> str:
        """Clean `text` and make sure that its rows are cached; returns their key, a hash of encoder and text."""
        return self._encode(self._prepare(text))

    def rows_of(self, text: str) -> Tensor:
        """Rows (L, d) of a text, computed without the cache."""
        return self._compute(self._prepare(text))

    def rows(self, key: str) -> Tensor:
        """Cached rows (L, d) in the encoder's dtype. Raises: InputError: the key is unknown."""
        return self._cache[key]

    def content_rows(self, text: str) -> Tensor:
        """float32 (tokens, d): rows of `text` taken literally, without cleaning and without </s>.

        Raises:
            InputError: the text has no tokens.
        """
        rows = self._cache[self._encode(text)][:-1].float()
        if not rows.shape[0]:
            raise InputError(f"modulation text: expected at least one token, got {text!r}")
        return rows

    def new_token_row(self) -> Tensor:
        """float32 (1, d): the row of a new token whose input embedding is the vocabulary's mean."""
        key = hashlib.sha256(f"new token\0{self._identity}".encode()).hexdigest()
        if self._cache.find(key) is None:
            self._cache.store(key, self._computed_new_token_row())
        return self._cache[key]

    @torch.no_grad()
    def _computed_new_token_row(self) -> Tensor:
        self._load()
        table = self._model.get_input_embeddings()
        end = torch.tensor([self._tokenizer.eos_token_id], device=self._device)
        inputs = torch.cat([table.weight.mean(dim=0, keepdim=True), table(end)])[None]
        return self._model(inputs_embeds=inputs).last_hidden_state[0, :-1].float().cpu()

    def unload(self) -> bool:
        """Free the encoder; a text that is not cached loads it again. Returns whether it was loaded."""
        was_loaded = self.loaded
        self._model = None
        if was_loaded and torch.device(self._device).type == "cuda":
            torch.cuda.empty_cache()  # torch would keep gigabytes that other processes on this GPU may need
        return was_loaded

    def _encode(self, prepared: str) -> str:
        key = hashlib.sha256(f"{self._identity}\0{prepared}".encode()).hexdigest()
        if self._cache.find(key) is None:
            self._cache.store(key, self._compute(prepared))
        return key

    @torch.no_grad()
    def _compute(self, prepared: str) -> Tensor:
        self._load()
        tokens = self._tokenizer(prepared, add_special_tokens=True, return_attention_mask=False)["input_ids"]
        if len(tokens) > self._max_length:
            _log.warning("prompt of %d tokens cut to max_length %d", len(tokens), self._max_length)
            tokens = [*tokens[: self._max_length - 1], tokens[-1]]
        ids = torch.tensor([tokens], device=self._device)
        return self._model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state[0]

    def _load(self) -> None:
        from transformers import AutoTokenizer, MT5EncoderModel  # slow to import, not needed if all is cached

        if self._tokenizer is None:
            self._tokenizer = AutoTokenizer.from_pretrained(self._tokenizer_folder, local_files_only=True)
        if self._model is None:
            _log.info("loading the text encoder %s", self._folder.name)
            # transformers draws initial weights before it reads the stored ones. The cache decides when the encoder is
            # loaded, and must not change the state of the global generator, which checkpoints contain.
            with torch.random.fork_rng(devices=[]):
                # read without a second copy in host memory: the published weights have 11 GB
                model = MT5EncoderModel.from_pretrained(
                    self._folder, torch_dtype=self._dtype, local_files_only=True, low_cpu_mem_usage=True
                )
            self._model = model.eval().requires_grad_(False).to(self._device)


def _tokenizer_folder(encoder: Path, given: str | Path | None) -> Path:
    candidates = [resolve_folder(given)] if given is not None else [encoder, encoder.parent / "tokenizer"]
    for folder in candidates:
        if any((folder / name).is_file() for name in ("spiece.model", "tokenizer.json")):
            return folder
    raise WeightsFileError(
        f"text encoder `{encoder.name}`: expected a tokenizer (spiece.model or tokenizer.json) in it or in "
        "`tokenizer/` next to it, found none"
    )


def _fingerprint(
    encoder: Path, tokenizer: Path, dtype: torch.dtype, max_length: int, digests: FileDigests | None
) -> str:
    """A hash of everything that the rows depend on: settings, tokenizer and weights (see `weights_lines`)."""
    digest = hashlib.sha256(f"{dtype} {max_length}".encode())
    if not (encoder / "config.json").is_file():
        raise WeightsFileError(f"text encoder `{encoder.name}`: expected config.json, which does not exist")
    digest.update((encoder / "config.json").read_bytes())
    for name in ("spiece.model", "tokenizer.json"):
        if (tokenizer / name).is_file():
            digest.update((tokenizer / name).read_bytes())
    for line in weights_lines(encoder, _WEIGHT_SUFFIXES, digests):
        digest.update(line.encode())
    return digest.hexdigest()
