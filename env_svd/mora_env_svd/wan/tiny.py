"""Tiny models in the published layouts of Wan 2.1 and Wan 2.2: every part, with some ten thousand parameters each.

The weights are random from a seed; the real code loads, trains and serves them on a CPU.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import torch

from mora_env_svd.wan.published import scheduler_config

Layout = Literal["i2v", "flf2v", "a14b", "ti2v"]  # Wan 2.1 I2V and FLF2V, Wan 2.2 A14B and TI2V
TEXT_WIDTH, _PICTURE_WIDTH, _PICTURE_SIDE, _PICTURE_PATCH = 32, 16, 32, 16
_NUM_HEADS, _HEAD_WIDTH = 2, 12
_CORPUS = [
    f"a {colour} {shape} moves {direction} [Mod] over the {place} in the {time}"
    for colour in ("red", "green", "blue", "yellow", "white", "black", "bright", "dark")
    for shape in ("circle", "square", "pancake", "cloud", "monster", "ball", "cat", "ship")
    for direction in ("left", "right", "up", "down")
    for place, time in (("sea", "morning"), ("city", "night"), ("field", "rain"))
]


def tiny_wan(folder: Path, layout: Layout = "i2v") -> dict[str, Any]:
    """Write a tiny model; returns options of kind `wan` that make clips of 5 frames at 32x32 pixels."""
    make_tiny(folder, layout)
    return {
        "model": str(folder),
        "num_frames": 5,
        "height": 32,
        "width": 32,
        "max_sequence_length": 16,
        "num_inference_steps": 2,
        "guidance_scale": 2.0,
        "gradient_steps": "all",
    }


def make_tiny(folder: Path, layout: Layout = "i2v", *, seed: int = 0) -> None:
    """Write a model in diffusers' layout. The same seed writes the same weights."""
    from diffusers import UniPCMultistepScheduler, WanImageToVideoPipeline

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tokenizer = _tokenizer(folder / "tokenizer")
        pipeline = WanImageToVideoPipeline(
            tokenizer=tokenizer,
            transformer=_transformer(layout),
            vae=_vae(layout),
            text_encoder=_text_encoder(len(tokenizer)),
            scheduler=UniPCMultistepScheduler.from_config(scheduler_config(flow_shift=3.0)),
            expand_timesteps=layout == "ti2v",
            **(_image_encoder() if layout in ("i2v", "flf2v") else {}),
            **({"transformer_2": _transformer(layout), "boundary_ratio": 0.9} if layout == "a14b" else {}),
        )
        pipeline.save_pretrained(folder)


def _transformer(layout: Layout) -> Any:
    from diffusers import WanTransformer3DModel

    width = _NUM_HEADS * _HEAD_WIDTH
    if layout == "ti2v":
        own: dict[str, Any] = {"in_channels": 48, "out_channels": 48}
    else:
        own = {"in_channels": 36, "out_channels": 16}
    if layout in ("i2v", "flf2v"):
        own |= {"image_dim": _PICTURE_WIDTH, "added_kv_proj_dim": width}
    if layout == "flf2v":
        own["pos_embed_seq_len"] = 2 * ((_PICTURE_SIDE // _PICTURE_PATCH) ** 2 + 1)
    return WanTransformer3DModel(
        num_attention_heads=_NUM_HEADS, attention_head_dim=_HEAD_WIDTH, text_dim=TEXT_WIDTH, freq_dim=32, ffn_dim=48,
        num_layers=2, rope_max_seq_len=32, **own,
    )  # fmt: skip


def _vae(layout: Layout) -> Any:
    from diffusers import AutoencoderKLWan

    own: dict[str, Any] = {}
    if layout == "ti2v":
        own = {
            "z_dim": 48, "is_residual": True, "in_channels": 12, "out_channels": 12, "patch_size": 2,
            "scale_factor_spatial": 16, "latents_mean": [0.01 * at for at in range(48)],
            "latents_std": [0.5 + 0.01 * at for at in range(48)],
        }  # fmt: skip
    return AutoencoderKLWan(base_dim=8, dim_mult=[1, 1, 1, 1], num_res_blocks=1, **own)


def _text_encoder(num_tokens: int) -> Any:
    from transformers import UMT5Config, UMT5EncoderModel

    config = UMT5Config(
        vocab_size=num_tokens, d_model=TEXT_WIDTH, d_kv=8, d_ff=2 * TEXT_WIDTH, num_layers=2, num_heads=4,
        feed_forward_proj="gated-gelu", dropout_rate=0.0,
    )  # fmt: skip
    return UMT5EncoderModel(config).eval()


def _image_encoder() -> dict[str, Any]:
    from transformers import CLIPImageProcessorPil, CLIPVisionConfig, CLIPVisionModel

    config = CLIPVisionConfig(
        hidden_size=_PICTURE_WIDTH, intermediate_size=2 * _PICTURE_WIDTH, num_hidden_layers=2, num_attention_heads=2,
        image_size=_PICTURE_SIDE, patch_size=_PICTURE_PATCH, hidden_act="gelu",
    )  # fmt: skip
    crop = {"height": _PICTURE_SIDE, "width": _PICTURE_SIDE}
    processor = CLIPImageProcessorPil(size={"shortest_edge": _PICTURE_SIDE}, crop_size=crop)
    return {"image_encoder": CLIPVisionModel(config).eval(), "image_processor": processor}


def _tokenizer(folder: Path) -> Any:
    """A T5 tokenizer of the corpus."""
    import sentencepiece
    from transformers import AutoTokenizer

    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "spiece.model", "wb") as model:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(_CORPUS), model_writer=model, vocab_size=200, pad_id=0, eos_id=1, unk_id=2,
            bos_id=-1, hard_vocab_limit=False, minloglevel=2,
        )  # fmt: skip
    config = {"tokenizer_class": "T5Tokenizer", "extra_ids": 100, "model_max_length": 512, "pad_token": "<pad>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return AutoTokenizer.from_pretrained(str(folder))
