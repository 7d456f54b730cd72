"""Parts of tiny image models that several kinds have: autoencoder, CLIP text encoder and tokenizer."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from diffusers import AutoencoderKL
from transformers import CLIPTextConfig, CLIPTokenizer


def tiny_vae(**config: Any) -> AutoencoderKL:
    """An autoencoder with random weights that makes each side eight times smaller; `config` has the other values."""
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(16, 16, 32, 32),
        layers_per_block=1,
        norm_num_groups=8,
        sample_size=64,
        **config,
    )


def tiny_clip_config(vocab_size: int, *, width: int, **config: Any) -> CLIPTextConfig:
    """The configuration of a CLIP text encoder of two layers for `tiny_clip_tokenizer`; `config` has other values."""
    return CLIPTextConfig(
        vocab_size=vocab_size,
        hidden_size=width,
        intermediate_size=2 * width,
        projection_dim=width,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=77,
        bos_token_id=vocab_size - 2,
        eos_token_id=vocab_size - 1,
        pad_token_id=vocab_size - 1,
        **config,
    )


def tiny_clip_tokenizer(folder: Path, words: Iterable[str] = ()) -> CLIPTokenizer:
    """A byte-level CLIP tokenizer: 256 bytes, 256 bytes that end a word, two specials.

    Args:
        words: of ASCII letters, which get a token each, because random text encoders hardly tell words by their bytes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    characters = list(byte_characters().values())
    tokens = dict.fromkeys([*characters, *(character + "</w>" for character in characters)])
    merges: dict[str, None] = {}
    for word in sorted({word.lower() for word in words}):
        left, *others = [*word[:-1], word[-1] + "</w>"]
        for right in others:
            merges[f"{left} {right}"] = None
            left += right
            tokens[left] = None
    known = [*tokens, "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(known)}), encoding="utf-8")
    lines = "".join(f"{merge}\n" for merge in merges)
    (folder / "merges.txt").write_text("#version: 0.2\n" + lines, encoding="utf-8")
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
