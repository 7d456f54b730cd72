"""The agent of a text encoder. It has no access to sockets."""

from __future__ import annotations

from typing import Any

import torch
from mora_runtime import Agent, remote
from mora_runtime.errors import BadArgument, CheckpointError
from transformers import AutoModel, AutoTokenizer

from mora_env_sd3.text_embedding.options import TextEmbeddingOptions


class TextEmbeddingAgent(Agent):
    """Turns texts into vectors, one text after the other: its vector does not depend on the other texts of a call.

    Args:
        options: checked options, with a model folder or Hub id.
    """

    def __init__(self, options: TextEmbeddingOptions, device: torch.device) -> None:
        self._options = options
        self._device = device
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(options.model)
            model = AutoModel.from_pretrained(options.model, dtype=torch.float32, use_safetensors=True)
        except (OSError, ValueError) as error:
            raise CheckpointError(f"`{options.model}`: cannot be loaded as a text encoder: {error}") from None
        self._model = model.to(device).eval().requires_grad_(False)

    @remote
    def embed(self, texts: list[str]) -> dict[str, Any]:
        """`embeddings`, float32 (N, d), of N texts.

        Raises:
            BadArgument: a text is empty.
        """
        if not texts or not all(text.strip() for text in texts):
            raise BadArgument(f"texts: expected one or more that are not empty, got {len(texts)}")
        with torch.inference_mode():
            return {"embeddings": torch.stack([self._vector(text) for text in texts])}

    def _vector(self, text: str) -> torch.Tensor:
        tokens = self._tokenizer(text, truncation=True, max_length=self._options.max_length, return_tensors="pt")
        states = self._model(**tokens.to(self._device)).last_hidden_state[0].float().cpu()
        return states[0] if self._options.pooling == "first" else states.mean(dim=0)
