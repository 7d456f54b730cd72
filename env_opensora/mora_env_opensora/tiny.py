"""Makes tiny versions of the video agent's models in the published formats.

The real code loads, trains and serves it, on a CPU and without downloads. It makes clips of 9 frames at 64x64 or 32x32
pixels.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch

from mora_env_opensora import published
from mora_env_opensora.models import CausalVAEModel, OpenSoraInpaint, OpenSoraT2V

TEXT_WIDTH = 32

TRANSFORMER_CONFIG: dict[str, Any] = {
    "num_layers": 2,
    "num_attention_heads": 2,
    "attention_head_dim": 24,
    "cross_attention_dim": 48,
    "caption_channels": TEXT_WIDTH,
    "in_channels": 4,
    "out_channels": 4,
    "sample_size": [8, 8],
    "sample_size_t": 3,
    "patch_size": 2,
    "interpolation_scale_t": 1.0,
    "interpolation_scale_h": 1.0,
    "interpolation_scale_w": 1.0,
    "use_rope": True,
}
VAE_CONFIG: dict[str, Any] = published.VAE | {
    "hidden_size": 32,
    "hidden_size_mult": [1, 1, 1, 1],
    "num_res_blocks": 1,
    "use_quant_layer": True,
}
_CORPUS = """
a stylish woman walks down a street filled with warm glowing signs
a white cloud drifts over blue water while the sun goes down behind the hills
two monsters dance in the rain and a small dog looks at them [mod] [Mod]
pancakes stand on a plate, butter melts on top, syrup runs over the side.
the camera moves slowly through a forest; leaves fall, birds fly, light breaks through the trees
an old car drives along the coast at night: stars, waves, wind
The video showcases a scene with coherent and clear visuals.
a cat with sunglasses (best quality), (ultra-detailed), "quoted" it's 0 1 2 3 4 5 6 7 8 9
worst quality, low quality, jpeg artifacts, signature, watermark, username, blurry, bad anatomy
"""


def tiny_image_to_video(folder: Path) -> dict[str, Any]:
    """Write them; returns options of kind `opensora` that make clips of 9 frames at 32x32 pixels."""
    make_tiny(folder)
    return {
        "model": str(folder / "transformer_i2v"),
        "vae": str(folder / "vae"),
        "text_encoder": str(folder / "text_encoder"),
        "num_frames": 9,
        "height": 32,
        "width": 32,
        "max_length": 32,
        "scheduler": "ddim",
        "num_inference_steps": 2,
        "guidance_scale": 3.0,
        "gradient_steps": "all",
    }


def make_tiny(
    path: str | Path,
    seed: int = 0,
    *,
    transformer: Mapping[str, Any] = TRANSFORMER_CONFIG,
    vae: Mapping[str, Any] = VAE_CONFIG,
    corpus: Sequence[str] = tuple(_CORPUS.strip().splitlines()),
) -> None:
    """Write `transformer_i2v/`, `transformer_t2v/`, `vae/`, `text_encoder/` and `tokenizer/` under `path`.

    The same seed writes the same weights. Unlike in a fresh inpaint model, the two added projections are not zero,
    because with zeros no gradient would reach the image agent.

    Args:
        transformer, vae: configurations in upstream's keys.
        corpus: lines for the text encoder's vocabulary.
    """
    folder = Path(path)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        text_to_video = OpenSoraT2V.from_config(transformer).eval()
        text_to_video.save_pretrained(folder / "transformer_t2v")
        _image_to_video(text_to_video, transformer).save_pretrained(folder / "transformer_i2v")
        CausalVAEModel.from_config(vae).eval().save_pretrained(folder / "vae")
        _save_text_encoder(folder, corpus)


def _image_to_video(base: OpenSoraT2V, config: Mapping[str, Any]) -> OpenSoraInpaint:
    model = OpenSoraInpaint.from_config(config).eval()
    model.init_from_text_to_video(base.state_dict(), load_mask=True)
    for embed in (model.pos_embed_masked_video, model.pos_embed_mask):
        torch.nn.init.normal_(cast(torch.nn.Linear, embed[1]).weight, std=model.config.width**-0.5)
    return model


def _save_text_encoder(folder: Path, corpus: Sequence[str]) -> None:
    import sentencepiece
    from transformers import AutoTokenizer, MT5Config, MT5EncoderModel

    tokenizer_folder = folder / "tokenizer"
    tokenizer_folder.mkdir(parents=True, exist_ok=True)
    trained = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus), model_writer=trained, vocab_size=200,
        hard_vocab_limit=False, character_coverage=1.0, num_threads=1, minloglevel=2,
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1,
    )  # fmt: skip
    (tokenizer_folder / "spiece.model").write_bytes(trained.getvalue())
    settings = {"tokenizer_class": "T5Tokenizer", "extra_ids": 0, "eos_token": "</s>", "unk_token": "<unk>"}
    settings |= {"pad_token": "<pad>", "model_max_length": 512, "legacy": True}
    (tokenizer_folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder, local_files_only=True)
    config = MT5Config(
        vocab_size=len(tokenizer), d_model=TEXT_WIDTH, d_kv=8, d_ff=48, num_layers=2, num_heads=4,
        feed_forward_proj="gated-gelu", dropout_rate=0.0,
    )  # fmt: skip
    MT5EncoderModel(config).eval().save_pretrained(folder / "text_encoder")
