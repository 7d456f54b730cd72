"""Tiny LLaVA-OneVision and Qwen2-VL in the published formats, with random weights and a tokenizer of bytes.

The real code loads and prompts them; their answers are noise.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import (
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    PreTrainedModel,
    Qwen2Tokenizer,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
)

from mora_env_sd3.pictures.tiny_parts import byte_characters

_TEXT: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": False,
    "initializer_range": 0.2,  # ten times the usual, so that pictures change the answers of so small a model
}
_TURNS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_LLAVA_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + ' ' }}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}{{ '<image>\n' }}{% endif %}{% endfor %}"
    "{% for part in message['content'] %}{% if part['type'] == 'text' %}{{ '\n' + part['text'] }}{% endif %}"
    "{% endfor %}"
    "{{ '<|im_end|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_QWEN_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<|vision_start|><|image_pad|><|vision_end|>' }}"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def make_llava_onevision(folder: Path) -> None:
    """SigLIP, a projector and Qwen2; each of several pictures becomes 16 tokens and a newline."""
    tokenizer = _tokenizer(folder, (*_TURNS, "<image>", "<video>"))
    sides = [[56, 56], [56, 112], [112, 56]]
    vision = {"model_type": "siglip_vision_model", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    vision |= {"num_attention_heads": 4, "image_size": 56, "patch_size": 14, "vision_use_head": False}
    config = LlavaOnevisionConfig(
        vision_config=vision,
        text_config=_TEXT | {"model_type": "qwen2"} | _tokens(tokenizer),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=sides,
    )
    _save(folder, LlavaOnevisionForConditionalGeneration(config), _LLAVA_TEMPLATE)
    _write(folder / "processor_config.json", {
        "processor_class": "LlavaOnevisionProcessor", "num_image_tokens": 16, "image_token": "<image>",
        "video_token": "<video>", "vision_feature_select_strategy": "full", "vision_aspect_ratio": "anyres_max_9",
    })  # fmt: skip
    _write(folder / "preprocessor_config.json", {
        "image_processor_type": "LlavaOnevisionImageProcessor", "size": {"height": 56, "width": 56},
        "image_grid_pinpoints": sides, "image_mean": [0.5] * 3, "image_std": [0.5] * 3,
    })  # fmt: skip


def make_qwen2_vl(folder: Path) -> None:
    """A vision transformer of any resolution and Qwen2; a picture becomes a token for every 28x28 pixels."""
    own = {"vision_start": "<|vision_start|>", "vision_end": "<|vision_end|>"}
    own |= {"image": "<|image_pad|>", "video": "<|video_pad|>"}
    tokenizer = _tokenizer(folder, (*_TURNS, *own.values()))
    vision = {"depth": 2, "embed_dim": 32, "hidden_size": 32, "num_heads": 2, "mlp_ratio": 2}
    config = Qwen2VLConfig(
        vision_config=vision,
        text_config=_TEXT | _tokens(tokenizer) | {
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [1, 1, 2]}
        },
        **{f"{name}_token_id": tokenizer.convert_tokens_to_ids(token) for name, token in own.items()},
    )  # fmt: skip
    _save(folder, Qwen2VLForConditionalGeneration(config), _QWEN_TEMPLATE)
    _write(folder / "preprocessor_config.json", {
        "image_processor_type": "Qwen2VLImageProcessor", "processor_class": "Qwen2VLProcessor",
        "min_pixels": 56 * 56, "max_pixels": 112 * 112, "patch_size": 14, "temporal_patch_size": 2, "merge_size": 2,
    })  # fmt: skip


MAKERS: dict[str, Callable[[Path], None]] = {"llava-onevision": make_llava_onevision, "qwen2-vl": make_qwen2_vl}


def tiny_judge(folder: Path) -> dict[str, Any]:
    """Write both; returns options of kind `multimodal` for the first."""
    make_tiny_multimodal(folder)
    return {"model": str(folder / next(iter(MAKERS))), "dtype": "float32", "max_new_tokens": 8}


def make_tiny_multimodal(folder: Path, *, seed: int = 0) -> None:
    """Write `llava-onevision/` and `qwen2-vl/`. The same seed writes the same weights."""
    for name, make in MAKERS.items():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            (folder / name).mkdir(parents=True, exist_ok=True)
            make(folder / name)


def _tokenizer(folder: Path, own: tuple[str, ...]) -> Qwen2Tokenizer:
    """Byte-level BPE without merges, as Qwen2's files have it."""
    _write(folder / "vocab.json", {character: number for number, character in enumerate(byte_characters().values())})
    (folder / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    added = {str(256 + at): {"content": token, "special": True} for at, token in enumerate(own)}
    _write(folder / "tokenizer_config.json", {
        "tokenizer_class": "Qwen2Tokenizer", "added_tokens_decoder": added, "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>", "model_max_length": 8192,
    })  # fmt: skip
    return Qwen2Tokenizer.from_pretrained(str(folder))


def _tokens(tokenizer: Qwen2Tokenizer) -> dict[str, int]:
    return {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.convert_tokens_to_ids("<|endoftext|>"),
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def _save(folder: Path, model: PreTrainedModel, chat_template: str) -> None:
    model.eval().save_pretrained(folder)
    _write(folder / "chat_template.json", {"chat_template": chat_template})


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
