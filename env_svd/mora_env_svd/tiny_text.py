"""A tiny CLIP text encoder with random weights, and its tokenizer, in the published layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def save_tiny_text(folder: Path, width: int) -> None:
    """Write `tokenizer/` and `text_encoder/`, whose weights come from torch's global generator."""
    vocabulary = _save_tokenizer(folder / "tokenizer")
    _text_encoder(len(vocabulary), width).save_pretrained(folder / "text_encoder")


def _text_encoder(num_tokens: int, width: int) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel

    config = CLIPTextConfig(
        vocab_size=num_tokens, hidden_size=width, intermediate_size=2 * width, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=77, hidden_act="quick_gelu",
        bos_token_id=num_tokens - 2, eos_token_id=num_tokens - 1, pad_token_id=num_tokens - 1,
    )  # fmt: skip
    return CLIPTextModel(config).eval()


def _save_tokenizer(folder: Path) -> list[str]:
    """A byte-level CLIP tokenizer without merges: 256 bytes, 256 bytes that end a word, two specials."""
    folder.mkdir(parents=True, exist_ok=True)
    characters = [chr(byte) for byte in (*range(33, 127), *range(161, 173), *range(174, 256))]
    characters += [chr(256 + index) for index in range(256 - len(characters))]
    tokens = [*characters, *(character + "</w>" for character in characters), "<|startoftext|>", "<|endoftext|>"]
    files = {
        "vocab.json": json.dumps({token: index for index, token in enumerate(tokens)}),
        "merges.txt": "#version: 0.2\n",
        "tokenizer_config.json": json.dumps({"tokenizer_class": "CLIPTokenizer", "model_max_length": 77}),
    }
    for name, content in files.items():
        (folder / name).write_text(content, encoding="utf-8")
    return tokens
