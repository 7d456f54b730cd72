"""Encoded prompts, and the rows that start z, of a model whose text encoders can be unloaded.

Encoders are loaded on first use. Embeddings are stored by a hash of their content, so that only short keys travel
between processes. In a training job they are on disk too, where the agent's other servers and a restart find them.
"""

from __future__ import annotations

import hashlib
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from mora_runtime.errors import BadArgument
from mora_training.tensor_files import TensorFiles

MAX_PROMPT_LENGTH = 10_000
Embedding = TypeVar("Embedding")


class TextStore(ABC, Generic[Embedding]):
    """Encodes prompts. A subclass loads the encoders and computes embeddings and rows with them.

    Args:
        model: folder or Hub id in diffusers' layout.
        dtype: of weights and embeddings.
        folder: of the job, for results that its other processes can use; None = results stay in this process.
        embedding: makes the embedding of a prompt from its tensors, which are its attributes too.
        shapes: of these tensors, by name.
        details: other values that a result depends on.
    """

    def __init__(
        self,
        model: str,
        dtype: torch.dtype,
        device: torch.device,
        folder: Path | None,
        *,
        embedding: Callable[..., Embedding],
        shapes: Mapping[str, tuple[int | None, ...]],
        details: tuple[object, ...] = (),
    ) -> None:
        self._model = model
        self._dtype = dtype
        self._device = device
        self._embedding = embedding
        self._shapes = shapes
        self._pipeline: Any = None
        self._known: dict[str, Embedding] = {}
        self._rows: dict[tuple[str, bool, bool], torch.Tensor] = {}  # by the arguments of `rows`
        self._files = self._row_files = None
        if folder is not None:
            self._files = TensorFiles(folder, shapes)
            self._row_files = TensorFiles(folder / "rows", {"rows": (None, None)})
            self._identity = repr((model, dtype, device.type, *details, _weights_state(Path(model))))

    @abstractmethod
    def _load(self) -> Any:
        """A pipeline of diffusers with the tokenizers and text encoders, and without the other models."""

    @abstractmethod
    def _computed(self, pipeline: Any, prompt: str) -> Embedding:
        """The embedding of a prompt."""

    @abstractmethod
    def _computed_rows(self, pipeline: Any, text: str, *, new_token: bool, each: bool) -> torch.Tensor:
        """The result of `rows`, on any device."""

    def _loaded(self) -> Any:
        if self._pipeline is None:
            logging.getLogger(__name__).info("loading text encoders of %s", self._model)
            self._pipeline = self._load().to(self._device)
        return self._pipeline

    def unload(self) -> None:
        """Free the encoders; computed embeddings stay, and new prompts load the encoders again."""
        self._pipeline = None
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    @torch.no_grad()
    def encode(self, prompts: list[str]) -> list[str]:
        """Keys of the prompts' embeddings; unknown ones are computed.

        Raises:
            BadArgument: a prompt is longer than 10,000 characters.
        """
        keys = [hashlib.sha256(prompt.encode()).hexdigest()[:32] for prompt in prompts]
        for key, prompt in zip(keys, prompts, strict=True):
            if len(prompt) > MAX_PROMPT_LENGTH:
                raise BadArgument(f"prompt: expected at most {MAX_PROMPT_LENGTH} characters, got {len(prompt)}")
            if key not in self._known:
                self._known[key] = self._shared(prompt)
        return keys

    def _shared(self, prompt: str) -> Embedding:
        """One prompt's embedding, from the job's folder if it is there, which otherwise gets it."""
        if self._files is None:
            return self.embed(prompt)
        name = self._name("prompt", prompt)
        found = self._files.read(name)
        if found is not None:
            return self._embedding(**{part: tensor.to(self._device) for part, tensor in found.items()})
        embedding = self.embed(prompt)
        parts = {part: getattr(embedding, part).cpu().contiguous() for part in self._shapes}
        self._files.write(name, parts)
        return embedding

    def _name(self, *parts: object) -> str:
        """The name of a result in the job's folder: a hash of everything that it depends on."""
        return hashlib.sha256(repr((self._identity, *parts)).encode()).hexdigest()

    @torch.no_grad()
    def embed(self, prompt: str) -> Embedding:
        """One prompt's embedding, which is not stored here."""
        return self._computed(self._loaded(), prompt)

    def get(self, key: str) -> Embedding:
        """The embedding of a key from `encode`; BadArgument for any other key."""
        if key not in self._known:
            raise BadArgument(f"unknown prompt key `{key[:40]}`; expected one that `encode` of this server returned")
        return self._known[key]

    def rows(self, text: str, *, new_token: bool, each: bool = False) -> torch.Tensor:
        """Rows that initialise z: the encoder's output for the content tokens of `text`, without start and end.

        They are cached, so that the next call does not load the encoders again.

        Args:
            new_token: encode one token whose input embedding is the vocabulary's mean, instead of `text`.
            each: rows of every text encoder one after the other, where the model has several ("one z per encoder").

        Returns:
            float32 (rows, d) on the CPU.
        """
        key = (text, new_token, each)
        if key not in self._rows:
            self._rows[key] = self._shared_rows(text, new_token=new_token, each=each)
        return self._rows[key]

    def _shared_rows(self, text: str, *, new_token: bool, each: bool) -> torch.Tensor:
        """The result of `rows`, from the job's folder if it is there, which otherwise gets it."""
        name = None if self._row_files is None else self._name("rows", text, new_token, each)
        if self._row_files is not None and name is not None:
            found = self._row_files.read(name)
            if found is not None:
                return found["rows"]
        with torch.no_grad():
            rows = self._computed_rows(self._loaded(), text, new_token=new_token, each=each).float().cpu()
        if self._row_files is not None and name is not None:
            self._row_files.write(name, {"rows": rows.contiguous()})
        return rows


def _weights_state(model: Path) -> list[tuple[str, int, int, int]]:
    """Name, size, time and inode of the files of a model's folder; empty for a Hub id: servers of a job are offline."""
    paths = [path for path in sorted(model.rglob("*")) if path.is_file()] if model.is_dir() else []
    states = [(path, path.stat()) for path in paths]
    return [(str(path.relative_to(model)), found.st_size, found.st_mtime_ns, found.st_ino) for path, found in states]
