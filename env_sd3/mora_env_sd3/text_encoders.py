"""Stable Diffusion 3's three text encoders: prompts to joint embeddings, and the rows that start z_1."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusion3Pipeline
from mora_runtime.errors import BadArgument

from mora_env_sd3.pictures.text_store import TextStore


@dataclass(frozen=True)
class TextEmbedding:
    """One prompt: the rows that the transformer attends to, and the vector that modulates it."""

    joint: torch.Tensor  # (L, d): CLIP tokens (width zero-padded), then T5 tokens; d = T5's width
    pooled: torch.Tensor  # (p,): both CLIPs' pooled projections


class TextEncoders(TextStore[TextEmbedding]):
    """Encodes prompts as `TextEmbedding`s. T5 alone is larger than the transformer, so the encoders can be unloaded.

    Args:
        model, dtype, device, folder: as in `TextStore`.
        max_sequence_length: T5 tokens; longer prompts are truncated there (CLIP truncates at 77 tokens).
    """

    def __init__(
        self,
        model: str,
        dtype: torch.dtype,
        device: torch.device,
        max_sequence_length: int,
        folder: Path | None = None,
    ) -> None:
        shapes = {"joint": (None, None), "pooled": (None,)}
        super().__init__(
            model, dtype, device, folder, embedding=TextEmbedding, shapes=shapes, details=(max_sequence_length,)
        )
        self._max_sequence_length = max_sequence_length

    def _load(self) -> Any:
        return StableDiffusion3Pipeline.from_pretrained(
            self._model, transformer=None, vae=None, dtype=self._dtype, use_safetensors=True
        )

    def _computed(self, pipeline: Any, prompt: str) -> TextEmbedding:
        joint, _, pooled, _ = pipeline.encode_prompt(
            prompt,
            prompt_2=None,
            prompt_3=None,
            do_classifier_free_guidance=False,
            device=self._device,
            max_sequence_length=self._max_sequence_length,
        )
        return TextEmbedding(joint[0], pooled[0])

    def _computed_rows(self, pipeline: Any, text: str, *, new_token: bool, each: bool) -> torch.Tensor:
        """T5's rows; with `each`, the CLIPs' rows for `text` come before them on the joint sequence."""
        encoder = pipeline.text_encoder_3
        if encoder is None:
            raise BadArgument("this model has no T5 encoder, which initialises z_1; use modulation.mode random_init")
        table = encoder.get_input_embeddings()
        end = torch.tensor([pipeline.tokenizer_3.eos_token_id], device=self._device)
        if new_token:
            content = table.weight.mean(dim=0, keepdim=True)
        else:
            ids = pipeline.tokenizer_3(text, add_special_tokens=False, return_tensors="pt").input_ids[0]
            content = table(ids.to(self._device))
        inputs = torch.cat([content, table(end)]).unsqueeze(0)
        rows: torch.Tensor = encoder(inputs_embeds=inputs)[0][0, :-1]
        if each:
            clip = self._clip_rows(pipeline, text, rows.shape[-1])
            rows = torch.cat([clip.to(rows), rows])
        return rows

    def _clip_rows(self, pipeline: Any, text: str, width: int) -> torch.Tensor:
        """Both CLIPs' content rows side by side, zero-padded to `width` as SD3 pads them: (rows, width)."""
        embedding = self.embed(text).joint[: pipeline.tokenizer_max_length, :width]
        num_content = len(pipeline.tokenizer(text, add_special_tokens=False).input_ids)
        return embedding[1 : 1 + num_content]  # token 0 is start-of-text
