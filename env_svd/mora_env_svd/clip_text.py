"""Prompts to rows of Stable Diffusion 1.4's CLIP text encoder.

A text is padded to, and cut at, the tokenizer's length (77) with its end token; no attention mask is used. The rows are
the encoder's last hidden state, after the final layer norm.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mora_env_svd.files_state import files_state
from mora_env_svd.text_rows import TextRows, num_content_tokens


class TextEncoder(TextRows):
    """Texts to rows (77, D).

    Args:
        model: folder or Hub id with `tokenizer/` and `text_encoder/`.
        addition: is put after each prompt, without a space, as upstream does; not after the negative prompt.
        folder: of the job, for rows that its other processes can use; None = rows stay in this process.
    """

    def __init__(
        self, model: str, dtype: torch.dtype, device: torch.device, *, addition: str = "", folder: Path | None = None
    ) -> None:
        identity = repr((model, dtype, device.type, files_state(Path(model) / "text_encoder")))
        super().__init__(model, identity, device, folder=folder, addition=addition)
        self._dtype = dtype
        self._tokenizer: Any = None

    def _computed(self, text: str) -> Tensor:
        return self._forward(self._ids(text)).cpu()

    def _computed_content(self, text: str) -> Tensor:
        self._load()
        num_tokens = num_content_tokens(self._tokenizer, text)
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

    def _loaded_model(self) -> Any:
        from transformers import CLIPTextModel, CLIPTokenizer  # slow to import, not needed if all is cached

        if self._tokenizer is None:
            self._tokenizer = CLIPTokenizer.from_pretrained(self._source, subfolder="tokenizer")
        return CLIPTextModel.from_pretrained(
            self._source, subfolder="text_encoder", dtype=self._dtype, use_safetensors=True
        )


def load_clip_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Load a CLIP text model's weights by their keys in files, with or without the prefix `text_model.`."""
    own = model.state_dict().keys()
    prefix = "text_model."
    bare = {name.removeprefix(prefix): tensor for name, tensor in weights.items() if "position_ids" not in name}
    has_prefix = any(name.startswith(prefix) for name in own)
    model.load_state_dict({(prefix + name if has_prefix else name): tensor for name, tensor in bare.items()})
