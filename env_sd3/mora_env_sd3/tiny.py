"""Tiny Stable Diffusion 3: every part of the published layout, with a few hundred thousand parameters.

The weights are random from a seed; the real code loads and trains it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import sentencepiece
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
from transformers import AutoTokenizer, CLIPTextModelWithProjection, T5Config, T5EncoderModel

from mora_env_sd3.pictures.tiny_parts import tiny_clip_config, tiny_clip_tokenizer, tiny_vae

_CORPUS = [
    f"a {colour} {shape} moves {direction} [Mod] over the {place} in the {time}"
    for colour in ("red", "green", "blue", "yellow", "white", "black", "bright", "dark")
    for shape in ("circle", "square", "pancake", "cloud", "monster", "ball", "cat", "ship")
    for direction in ("left", "right", "up", "down")
    for place, time in (("sea", "morning"), ("city", "night"), ("field", "rain"))
]
_CLIP_WIDTH = 32
_T5_WIDTH = 64


def tiny_text_to_image(folder: Path) -> dict[str, Any]:
    """Write a tiny SD3; returns options of kind `sd3` that make pictures of 32x32 pixels with it."""
    make_tiny(folder)
    return {
        "model": str(folder),
        "height": 32,
        "width": 32,
        "num_inference_steps": 3,
        "guidance_scale": 3.0,
        "max_sequence_length": 16,
        "gradient_steps": "all",
    }


def tiny_image_to_image(folder: Path) -> dict[str, Any]:
    """Write a tiny SD3; returns options of kind `sd3_image_to_image`, of whose three steps two run."""
    return {**tiny_text_to_image(folder), "strength": 0.6}


def make_tiny(folder: Path, *, seed: int = 0, corpus: Sequence[str] = _CORPUS, **transformer: Any) -> None:
    """Write a tiny SD3 in diffusers' layout: transformer/, vae/, scheduler/, three text encoders and tokenizers.

    Args:
        corpus: lines for T5's vocabulary.
        transformer: values that replace those of its configuration here.
    """
    torch.manual_seed(seed)
    folder.mkdir(parents=True, exist_ok=True)
    clip_tokenizer = tiny_clip_tokenizer(folder / "tokenizer")
    clip = tiny_clip_config(len(clip_tokenizer), width=_CLIP_WIDTH)
    t5_tokenizer = _t5_tokenizer(folder / "tokenizer_3", corpus)
    pipeline = StableDiffusion3Pipeline(
        transformer=_transformer(transformer),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=tiny_vae(
            latent_channels=16,
            scaling_factor=1.5305,
            shift_factor=0.0609,
            use_quant_conv=False,
            use_post_quant_conv=False,
        ),
        text_encoder=CLIPTextModelWithProjection(clip),
        tokenizer=clip_tokenizer,
        text_encoder_2=CLIPTextModelWithProjection(clip),
        tokenizer_2=clip_tokenizer,
        text_encoder_3=_t5(len(t5_tokenizer)),
        tokenizer_3=t5_tokenizer,
    )
    pipeline.save_pretrained(folder)


def _transformer(changes: dict[str, Any]) -> SD3Transformer2DModel:
    config = {
        "sample_size": 32,
        "patch_size": 2,
        "in_channels": 16,
        "num_layers": 2,
        "attention_head_dim": 32,
        "num_attention_heads": 2,
        "joint_attention_dim": _T5_WIDTH,
        "caption_projection_dim": 64,
        "pooled_projection_dim": 2 * _CLIP_WIDTH,
        "out_channels": 16,
        "pos_embed_max_size": 64,
    }
    return SD3Transformer2DModel(**(config | changes))


def _t5(vocab_size: int) -> T5EncoderModel:
    return T5EncoderModel(
        T5Config(
            vocab_size=vocab_size,
            d_model=_T5_WIDTH,
            d_kv=16,
            d_ff=2 * _T5_WIDTH,
            num_layers=2,
            num_heads=4,
            feed_forward_proj="gated-gelu",
            dropout_rate=0.0,
        )
    )


def _t5_tokenizer(folder: Path, corpus: Sequence[str]) -> AutoTokenizer:
    folder.mkdir(parents=True, exist_ok=True)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus),
        model_prefix=str(folder / "spiece"),
        vocab_size=200,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    (folder / "spiece.vocab").unlink()
    config = {"tokenizer_class": "T5Tokenizer", "extra_ids": 100, "model_max_length": 512, "pad_token": "<pad>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return AutoTokenizer.from_pretrained(str(folder))
