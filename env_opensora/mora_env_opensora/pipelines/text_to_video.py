"""Text to video, or to an image where one frame is asked for."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mora_env_opensora.conditioning import ClipSize
from mora_env_opensora.models import CausalVAEModel, InputError, OpenSoraT2V
from mora_env_opensora.objective import stack_texts
from mora_env_opensora.pipelines.pixels import decode_frames
from mora_env_opensora.pipelines.sampler import LatentSampler, SamplingSettings
from mora_env_opensora.text.encoder import TextEncoder
from mora_env_opensora.text.prompts import NEGATIVE_PROMPT, positive_prompt


class TextToVideoPipeline:
    """`sample` works on encoder rows; calling the pipeline takes prompts."""

    def __init__(
        self,
        model: OpenSoraT2V,
        vae: CausalVAEModel,
        size: ClipSize,
        settings: SamplingSettings | None = None,
        encoder: TextEncoder | None = None,
    ) -> None:
        self.vae = vae
        self.size = size
        self.sampler = LatentSampler(model, settings or SamplingSettings(scheduler="euler_ancestral"))
        self.encoder = encoder

    def __call__(
        self, prompts: Sequence[str], seeds: Sequence[int], *, negative_prompt: str = NEGATIVE_PROMPT
    ) -> list[Tensor]:
        """One clip, uint8 (F, H, W, 3), a prompt and seed. The prompts get upstream's quality words around them."""
        rows, negative = encode_prompts(self.encoder, prompts, seeds, negative_prompt)
        return [self.sample(text, negative, seed) for text, seed in zip(rows, seeds, strict=True)]

    def sample(self, text: Tensor, negative: Tensor, seed: int, *, z: Tensor | None = None) -> Tensor:
        """Encoder rows (L, C) of prompt and negative prompt -> uint8 (F, H, W, 3); z stands in both halves."""
        sampler = self.sampler
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn((1, *self.size.latent_shape), generator=generator)
        texts = [negative, text] if sampler.settings.guided else [text]
        latents = sampler.run(stack_texts(texts, z, sampler.model), noise, generator)
        return decode_frames(self.vae, latents)


def encode_prompts(
    encoder: TextEncoder | None, prompts: Sequence[str], seeds: Sequence[int], negative_prompt: str
) -> tuple[list[Tensor], Tensor]:
    """Rows of each prompt, and of the negative prompt.

    Raises:
        InputError: no encoder, as many seeds as prompts are not given, or a prompt is empty.
    """
    if encoder is None:
        raise InputError("this pipeline was made without a text encoder: expected one for prompts; or call `sample`")
    if len(prompts) != len(seeds) or not prompts:
        raise InputError(f"expected one seed a prompt and at least one prompt, got {len(prompts)} and {len(seeds)}")
    for prompt in prompts:
        if not prompt.strip():
            raise InputError("prompt: expected some text, got an empty one; describe what the video should show")
    rows = [encoder.rows(encoder.encode(positive_prompt(prompt))) for prompt in prompts]
    return rows, encoder.rows(encoder.encode(negative_prompt))
