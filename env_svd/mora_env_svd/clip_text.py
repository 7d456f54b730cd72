"""Prompts to rows of Stable Diffusion 1.4's CLIP text encoder, which is loaded when a text is not cached.

A text is padded to, and cut at, the tokenizer's length (77) with its end token; no attention mask is used. The rows are
the encoder's last hidden state, after the final layer norm.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mora_training.tensor_files import TensorFiles
from torch import Tensor, nn

from mora_env_svd.errors import InputError
from mora_env_svd.files_state import files_state

_log = logging.getLogger(__name__)
_MAX_NUM_CHARACTERS = 10_000
_SHAPES = {"rows": (None, None)}


class TextEncoder:
    """Texts to rows (77, D).

    Args:
        model: folder or Hub id with `tokenizer/` and `text_encoder/`.
        addition: is put after each prompt, without a space, as upstream does; not after the negative prompt.
        folder: of the job, for rows that its other processes can use; None = rows stay in this process.
    """

    def __init__(
        self, model: str, dtype: torch.dtype, device: torch.device, *, addition: str = "", folder: Path | None = None
    ) -> None:
        self._source = model
        self._dtype = dtype
        self._device = device
        self._addition = addition
        self._files = None if folder is None else TensorFiles(folder, _SHAPES)
        self._identity = repr((model, dtype, device.type, files_state(Path(model) / "text_encoder")))
        self._known: dict[str, Tensor] = {}
        self._model: Any = None
        self._tokenizer: Any = None

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
        """Rows (77, D) on the CPU. Raises: InputError: the key is unknown."""
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
        """float32 (tokens, D): the rows of a text's own tokens, without begin and end.

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

    def _computed(self, text: str) -> Tensor:
        return self._forward(self._ids(text)).cpu()

    def _computed_content(self, text: str) -> Tensor:
        self._load()
        num_tokens = len(self._tokenizer(text, add_special_tokens=False).input_ids)
        if num_tokens == 0:
            raise InputError(f"modulation text: expected at least one token, got {text!r}")
        return self._computed(text)[1 : 1 + num_tokens].float()

    def _computed_new_token(self) -> Tensor:
        ids = self._ids("")  # begin, then end tokens: the first of these becomes the new token
        table = self._model.get_input_embeddings()

        def replace(module: nn.Module, arguments: Any, output: Tensor) -> Tensor:
            changed = output.clone()
            changed[:, 1] = table.weight.mean(dim=0)
            return changed

        handle = table.register_forward_hook(replace)
        try:
            return self._forward(ids)[1:2].float().cpu()
        finally:
            handle.remove()

    def _ids(self, text: str) -> Tensor:
        self._load()
        length = self._tokenizer.model_max_length
        found = self._tokenizer(text, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        ids: Tensor = found.input_ids.to(self._device)
        return ids

    @torch.no_grad()
    def _forward(self, ids: Tensor) -> Tensor:
        found: Tensor = self._model(input_ids=ids).last_hidden_state[0]
        return found

    def _load(self) -> None:
        from transformers import CLIPTextModel, CLIPTokenizer  # slow to import, not needed if all is cached

        if self._tokenizer is None:
            self._tokenizer = CLIPTokenizer.from_pretrained(self._source, subfolder="tokenizer")
        if self._model is None:
            _log.info("loading the text encoder of %s", self._source)
            # transformers draws initial weights before it reads the stored ones. The cache decides when the encoder is
            # loaded, and must not change the state of the global generator, which checkpoints contain.
            with torch.random.fork_rng(devices=[]):
                model = CLIPTextModel.from_pretrained(
                    self._source, subfolder="text_encoder", dtype=self._dtype, use_safetensors=True
                )
            self._model = model.eval().requires_grad_(False).to(self._device)


def load_clip_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Load a CLIP text model's weights by their keys in files, with or without the prefix `text_model.`."""
    own = model.state_dict().keys()
    prefix = "text_model."
    bare = {name.removeprefix(prefix): tensor for name, tensor in weights.items() if "position_ids" not in name}
    has_prefix = any(name.startswith(prefix) for name in own)
    model.load_state_dict({(prefix + name if has_prefix else name): tensor for name, tensor in bare.items()})
