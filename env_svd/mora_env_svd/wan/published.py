"""Configs and sizes of the published models, for plans and for names that are not downloaded yet. It needs no torch."""

from __future__ import annotations

from typing import Any

Config = dict[str, Any]

_UMT5_XXL: Config = {
    "vocab_size": 256384,
    "d_model": 4096,
    "d_kv": 64,
    "d_ff": 10240,
    "num_layers": 24,
    "num_heads": 64,
    "feed_forward_proj": "gated-gelu",
}
# CLIP ViT-H/14 of XLM-RoBERTa-large-ViT-H-14
_VIT_H: Config = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 16,
    "image_size": 224,
    "patch_size": 14,
    "hidden_act": "gelu",
}
_SHARED_TRANSFORMER: Config = {
    "patch_size": [1, 2, 2],
    "attention_head_dim": 128,
    "text_dim": 4096,
    "freq_dim": 256,
    "cross_attn_norm": True,
    "qk_norm": "rms_norm_across_heads",
    "eps": 1e-6,
    "rope_max_seq_len": 1024,
}
_I2V_14B: Config = _SHARED_TRANSFORMER | {
    "num_attention_heads": 40,
    "num_layers": 40,
    "ffn_dim": 13824,
    "in_channels": 36,
    "out_channels": 16,
    "image_dim": 1280,
    "added_kv_proj_dim": 5120,
    "pos_embed_seq_len": None,
}
_TI2V_5B: Config = _SHARED_TRANSFORMER | {
    "num_attention_heads": 24,
    "num_layers": 30,
    "ffn_dim": 14336,
    "in_channels": 48,
    "out_channels": 48,
    "image_dim": None,
    "added_kv_proj_dim": None,
    "pos_embed_seq_len": None,
}
_VAE_21: Config = {"z_dim": 16, "base_dim": 96, "scale_factor_spatial": 8, "scale_factor_temporal": 4}
_VAE_22: Config = {
    "z_dim": 48,
    "base_dim": 160,
    "decoder_base_dim": 256,
    "is_residual": True,
    "in_channels": 12,
    "out_channels": 12,
    "patch_size": 2,
    "scale_factor_spatial": 16,
    "scale_factor_temporal": 4,
    "latents_mean": [
        -0.2289, -0.0052, -0.1323, -0.2339, -0.2799, 0.0174, 0.1838, 0.1557, -0.1382, 0.0542, 0.2813, 0.0891,
        0.1570, -0.0098, 0.0375, -0.1825, -0.2246, -0.1207, -0.0698, 0.5109, 0.2665, -0.2108, -0.2158, 0.2502,
        -0.2055, -0.0322, 0.1109, 0.1567, -0.0729, 0.0899, -0.2799, -0.1230, -0.0313, -0.1649, 0.0117, 0.0723,
        -0.2839, -0.2083, -0.0520, 0.3748, 0.0152, 0.1957, 0.1433, -0.2944, 0.3573, -0.0548, -0.1681, -0.0667,
    ],
    "latents_std": [
        0.4765, 1.0364, 0.4514, 1.1677, 0.5313, 0.4990, 0.4818, 0.5013, 0.8158, 1.0344, 0.5894, 1.0901,
        0.6885, 0.6165, 0.8454, 0.4978, 0.5759, 0.3523, 0.7135, 0.6804, 0.5833, 1.4146, 0.8986, 0.5659,
        0.7069, 0.5338, 0.4889, 0.4917, 0.4069, 0.4999, 0.6866, 0.4093, 0.5709, 0.6065, 0.6415, 0.4944,
        0.5726, 1.2042, 0.5458, 1.6887, 0.3971, 1.0600, 0.3943, 0.5537, 0.5444, 0.4089, 0.7468, 0.7744,
    ],
}  # fmt: skip


def scheduler_config(flow_shift: float) -> Config:
    """The content of scheduler/scheduler_config.json."""
    return {
        "_class_name": "UniPCMultistepScheduler",
        "prediction_type": "flow_prediction",
        "use_flow_sigmas": True,
        "flow_shift": flow_shift,
    }


def _configs(transformer: Config, vae: Config, flow_shift: float, **index: Any) -> dict[str, Config]:
    has_image_encoder = transformer["image_dim"] is not None
    return {
        "model_index": index,
        "transformer": transformer,
        "vae": vae,
        "text_encoder": _UMT5_XXL,
        "scheduler": scheduler_config(flow_shift),
        **({"image_encoder": _VIT_H} if has_image_encoder else {}),
        **({"transformer_2": transformer} if index.get("boundary_ratio") else {}),
    }


I2V_480P = "Wan-AI/Wan2.1-I2V-14B-480P-Diffusers"
I2V_720P = "Wan-AI/Wan2.1-I2V-14B-720P-Diffusers"
FLF2V_720P = "Wan-AI/Wan2.1-FLF2V-14B-720P-diffusers"
I2V_A14B = "Wan-AI/Wan2.2-I2V-A14B-Diffusers"
TI2V_5B = "Wan-AI/Wan2.2-TI2V-5B-Diffusers"
# By Hub id, then by folder: what its config.json says (model_index: model_index.json).
CONFIGS: dict[str, dict[str, Config]] = {
    I2V_480P: _configs(_I2V_14B, _VAE_21, 3.0),
    I2V_720P: _configs(_I2V_14B, _VAE_21, 5.0),
    FLF2V_720P: _configs(_I2V_14B | {"pos_embed_seq_len": 514}, _VAE_21, 16.0),
    I2V_A14B: _configs(_I2V_14B | {"image_dim": None, "added_kv_proj_dim": None}, _VAE_21, 5.0, boundary_ratio=0.9),
    TI2V_5B: _configs(_TI2V_5B, _VAE_22, 5.0, expand_timesteps=True),
}
_UMT5_XXL_COUNT, _VAE_21_COUNT, _A14B_COUNT = 5_680_910_336, 126_892_531, 14_288_901_184
_COUNTS_21 = {"vae": _VAE_21_COUNT, "text_encoder": _UMT5_XXL_COUNT, "image_encoder": 630_766_080}
# Numbers of parameters, for the memory table while the weights are not on this machine.
NUM_PARAMETERS: dict[str, dict[str, int]] = {
    I2V_480P: {"transformer": 16_394_878_784, **_COUNTS_21},
    I2V_720P: {"transformer": 16_394_878_784, **_COUNTS_21},
    FLF2V_720P: {"transformer": 16_395_536_704, **_COUNTS_21},
    I2V_A14B: {
        "transformer": _A14B_COUNT,
        "transformer_2": _A14B_COUNT,
        "vae": _VAE_21_COUNT,
        "text_encoder": _UMT5_XXL_COUNT,
    },
    TI2V_5B: {"transformer": 4_999_787_712, "vae": 704_688_668, "text_encoder": _UMT5_XXL_COUNT},
}
