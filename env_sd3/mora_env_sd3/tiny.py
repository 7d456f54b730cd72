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
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from transformers import (
    AutoTokenizer,
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
)

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
    clip_tokenizer = _clip_tokenizer(folder / "tokenizer")
    t5_tokenizer = _t5_tokenizer(folder / "tokenizer_3", corpus)
    pipeline = StableDiffusion3Pipeline(
        transformer=_transformer(transformer),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=_vae(),
        text_encoder=_clip(len(clip_tokenizer)),
        tokenizer=clip_tokenizer,
        text_encoder_2=_clip(len(clip_tokenizer)),
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


def _vae() -> AutoencoderKL:
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(16, 16, 32, 32),
        layers_per_block=1,
        latent_channels=16,
        norm_num_groups=8,
        sample_size=64,
        scaling_factor=1.5305,
        shift_factor=0.0609,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


def _clip(vocab_size: int) -> CLIPTextModelWithProjection:
    return CLIPTextModelWithProjection(
        CLIPTextConfig(
            vocab_size=vocab_size,
            hidden_size=_CLIP_WIDTH,
            intermediate_size=2 * _CLIP_WIDTH,
            projection_dim=_CLIP_WIDTH,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=77,
            bos_token_id=vocab_size - 2,
            eos_token_id=vocab_size - 1,
            pad_token_id=vocab_size - 1,
        )
    )


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


def _clip_tokenizer(folder: Path) -> CLIPTokenizer:
    """A byte-level CLIP tokenizer without merges: 256 bytes, 256 bytes that end a word, two specials."""
    folder.mkdir(parents=True, exist_ok=True)
    characters = list(byte_characters().values())
    tokens = [*characters, *(character + "</w>" for character in characters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return CLIPTokenizer.from_pretrained(str(folder))


def byte_characters() -> dict[int, str]:
    """The printable character that stands for each byte in byte-level BPE vocabularies."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    mapping = {byte: chr(byte) for byte in printable}
    for byte in range(256):
        mapping.setdefault(byte, chr(256 + len(mapping) - len(printable)))
    return mapping


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
