"""SDXL's two text encoders: prompts to rows and a pooled vector, and the rows that start z."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionXLPipeline

from mora_env_sd3.pictures.text_store import TextStore
from mora_env_sd3.unet.clip_rows import clip_rows

_SHAPES = {"rows": (None, None), "pooled": (None,)}


@dataclass(frozen=True)
class XlEmbedding:
    """One prompt: the rows that the UNet attends to, and the vector that modulates it."""

    rows: torch.Tensor  # (77, d): of both encoders side by side, each from its last layer but one
    pooled: torch.Tensor  # (p,): the second encoder's projection

    def zeros(self) -> XlEmbedding:
        """Zeros of the same shapes."""
        return XlEmbedding(torch.zeros_like(self.rows), torch.zeros_like(self.pooled))


class XlTextEncoders(TextStore[XlEmbedding]):
    """Encodes prompts as `XlEmbedding`s. Both encoders get the same prompt and cut it at 77 tokens."""

    def __init__(self, model: str, dtype: torch.dtype, device: torch.device, folder: Path | None = None) -> None:
        super().__init__(model, dtype, device, folder, embedding=XlEmbedding, shapes=_SHAPES)

    def _load(self) -> Any:
        # transformers draws initial weights before it reads the stored ones. The cache decides when the encoders are
        # loaded, and must not change the state of the global generator, which checkpoints contain.
        with torch.random.fork_rng(devices=[]):
            return StableDiffusionXLPipeline.from_pretrained(
                self._model, unet=None, vae=None, dtype=self._dtype, use_safetensors=True, add_watermarker=False
            )

    def _computed(self, pipeline: Any, prompt: str) -> XlEmbedding:
        rows, _, pooled, _ = pipeline.encode_prompt(prompt, device=self._device, do_classifier_free_guidance=False)
        return XlEmbedding(rows[0], pooled[0])

    def _computed_rows(self, pipeline: Any, text: str, *, new_token: bool, each: bool) -> torch.Tensor:
        """Rows of both encoders side by side, as in an embedding."""
        encoders = (pipeline.text_encoder, pipeline.text_encoder_2)
        return clip_rows(lambda text: self.embed(text).rows, pipeline.tokenizer, encoders, text, new_token=new_token)
