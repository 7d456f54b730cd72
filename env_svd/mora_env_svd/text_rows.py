"""Encoder rows of texts by content key; the encoder that computes them is loaded when a text is not cached."""

from __future__ import annotations

import hashlib
import logging
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import torch
from mora_training.tensor_files import TensorFiles
from torch import Tensor

from mora_env_svd.errors import InputError

_log = logging.getLogger(__name__)
_MAX_NUM_CHARACTERS = 10_000
_SHAPES = {"rows": (None, None)}


class TextRows(ABC):
    """Texts to rows (L, D). A subclass has an encoder and tells how it is used.

    Args:
        source: folder or Hub id with the encoder, for messages.
        identity: everything that rows depend on besides the text.
        folder: of the job, for rows that its other processes can use; None = rows stay in this process.
        addition: is put after each prompt, without a space; not after the negative prompt.
    """

    def __init__(
        self, source: str, identity: str, device: torch.device, *, folder: Path | None = None, addition: str = ""
    ) -> None:
        self._source = source
        self._identity = identity
        self._device = device
        self._addition = addition
        self._files = None if folder is None else TensorFiles(folder, _SHAPES)
        self._known: dict[str, Tensor] = {}
        self._model: Any = None

    @property
    def loaded(self) -> bool:
        return self._model is not None

    def encode(self, prompt: str) -> str:
        """The key of a prompt's rows, which are computed if they are not known.

        Raises:
            InputError: the prompt is longer than 10,000 characters.
        """
        return self._key_of(self._checked(prompt) + self._addition)

    def encode_negative(self, text: str) -> str:
        """As `encode`, without the addition."""
        return self._key_of(self._checked(text))

    def rows(self, key: str) -> Tensor:
        """Rows (L, D) on the CPU. Raises: InputError: the key is unknown."""
        found = self._found(key)
        if found is None:
            raise InputError(f"prompt key `{key[:12]}...` is unknown; expected one that `encode` returned")
        return found

    def rows_of(self, prompt: str) -> Tensor:
        """Rows of a prompt, which are not stored."""
        return self._computed(self._checked(prompt) + self._addition)

    def rows_of_negative(self, text: str) -> Tensor:
        """As `rows_of`, without the addition."""
        return self._computed(self._checked(text))

    def content_rows(self, text: str) -> Tensor:
        """float32 (tokens, D): the rows of a text's own tokens, without those that the tokenizer adds.

        Raises:
            InputError: the text has no tokens.
        """
        key = self._name("content", text)
        if self._found(key) is None:
            self._store(key, self._computed_content(text))
        return self._known[key]

    def new_token_row(self) -> Tensor:
        """float32 (1, D): the row of a new token whose input embedding is the vocabulary's mean."""
        key = self._name("new token")
        if self._found(key) is None:
            self._store(key, self._computed_new_token())
        return self._known[key]

    def unload(self) -> bool:
        """Free the encoder; a text that is not cached loads it again. Returns whether it was loaded."""
        was_loaded = self.loaded
        self._model = None
        if was_loaded and self._device.type == "cuda":
            torch.cuda.empty_cache()  # torch would keep memory that other processes on this GPU may need
        return was_loaded

    @abstractmethod
    def _computed(self, text: str) -> Tensor:
        """Rows (L, D) of a text, on the CPU."""

    @abstractmethod
    def _computed_content(self, text: str) -> Tensor:
        """The result of `content_rows`."""

    @abstractmethod
    def _computed_new_token(self) -> Tensor:
        """The result of `new_token_row`."""

    @abstractmethod
    def _loaded_model(self) -> Any:
        """The encoder, read from its files."""

    def _load(self) -> None:
        """Load the encoder if it is not loaded."""
        if self._model is None:
            _log.info("loading the text encoder of %s", self._source)
            # transformers draws initial weights before it reads the stored ones. The cache decides when the encoder is
            # loaded, and must not change the state of the global generator, which checkpoints contain.
            with torch.random.fork_rng(devices=[]):
                model = self._loaded_model()
            self._model = model.eval().requires_grad_(False).to(self._device)

    @staticmethod
    def _checked(text: str) -> str:
        if len(text) > _MAX_NUM_CHARACTERS:
            raise InputError(f"prompt: expected at most {_MAX_NUM_CHARACTERS} characters, got {len(text)}")
        return text

    def _key_of(self, text: str) -> str:
        key = self._name("prompt", text)
        if self._found(key) is None:
            self._store(key, self._computed(text))
        return key

    def _name(self, *parts: str) -> str:
        """A hash of everything that a result depends on."""
        return hashlib.sha256(repr((self._identity, *parts)).encode()).hexdigest()

    def _found(self, key: str) -> Tensor | None:
        if key not in self._known and self._files is not None:
            stored = self._files.read(key)
            if stored is not None:
                self._known[key] = stored["rows"]
        return self._known.get(key)

    def _store(self, key: str, rows: Tensor) -> None:
        self._known[key] = rows
        if self._files is not None:
            self._files.write(key, {"rows": rows.contiguous()})


def num_content_tokens(tokenizer: Any, text: str) -> int:
    """Number of a text's own tokens. Raises: InputError: it has none."""
    found = len(tokenizer(text, add_special_tokens=False).input_ids)
    if found == 0:
        raise InputError(f"modulation text: expected at least one token, got {text!r}")
    return found
