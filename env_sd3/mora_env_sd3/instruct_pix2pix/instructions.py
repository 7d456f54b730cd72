"""Instructions to rows of the CLIP text encoder: its last hidden state, after the final layer norm.

A text is padded to, and cut at, the tokenizer's length (77) with its end token; no attention mask is used.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionInstructPix2PixPipeline

from mora_env_sd3.pictures.text_store import TextStore
from mora_env_sd3.unet.clip_rows import clip_rows


@dataclass(frozen=True)
class Instruction:
    """An encoded instruction."""

    rows: torch.Tensor  # (L, d)


class Instructions(TextStore[Instruction]):
    """Encodes instructions.

    Args:
        model, dtype, device, folder: as in `TextStore`.
    """

    def __init__(self, model: str, dtype: torch.dtype, device: torch.device, folder: Path | None = None) -> None:
        super().__init__(model, dtype, device, folder, embedding=Instruction, shapes={"rows": (None, None)})

    def _load(self) -> Any:
        # transformers draws initial weights before it reads the stored ones. The cache decides when the encoder is
        # loaded, and must not change the state of the global generator, which checkpoints contain.
        with torch.random.fork_rng(devices=[]):
            return StableDiffusionInstructPix2PixPipeline.from_pretrained(
                self._model, unet=None, vae=None, scheduler=None, safety_checker=None, feature_extractor=None,
                requires_safety_checker=False, dtype=self._dtype, use_safetensors=True,
            )  # fmt: skip

    def _computed(self, pipeline: Any, prompt: str) -> Instruction:
        tokenizer = pipeline.tokenizer
        length = tokenizer.model_max_length
        ids = tokenizer(prompt, padding="max_length", max_length=length, truncation=True, return_tensors="pt").input_ids
        return Instruction(pipeline.text_encoder(ids.to(self._device))[0][0])

    def _computed_rows(self, pipeline: Any, text: str, *, new_token: bool, each: bool) -> torch.Tensor:
        encode, encoders = lambda prompt: self.embed(prompt).rows, [pipeline.text_encoder]
        return clip_rows(encode, pipeline.tokenizer, encoders, text, new_token=new_token)
