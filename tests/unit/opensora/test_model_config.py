"""A config is accepted completely, or refused with the name of the unknown key or value."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from mora_env_opensora.models import CausalVAEModel, ConfigError, OpenSoraInpaint, OpenSoraT2V
from mora_env_opensora.tiny import TRANSFORMER_CONFIG, VAE_CONFIG


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("interpolation_scale_x", 1.5),  # unknown
        ("downsampler", "k333_s222"),
        ("activation_fn", "geglu"),
        ("norm_type", "layer_norm"),
        ("norm_elementwise_affine", True),
        ("patch_size_t", 2),
        ("dropout", 0.1),
        ("attention_mode", "sparse"),
        ("use_additional_conditions", True),
        ("cross_attention_dim", 1920),
        ("attention_head_dim", 128),  # not a multiple of 6: no rotary axes
        ("sample_size", 8),
        ("interpolation_scale_t", 0.0),
        ("use_rope", "yes"),
        ("num_layers", 2.0),
        ("norm_eps", -1e-6),
        ("_class_name", "UDiT"),
    ],
)
def test_transformer_config_is_refused_by_name(key: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=key if key != "_class_name" else "UDiT"):
        OpenSoraT2V.from_config(TRANSFORMER_CONFIG | {"cross_attention_dim": None} | {key: value})


def test_unknown_key_offers_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean `num_layers`"):
        OpenSoraT2V.from_config(TRANSFORMER_CONFIG | {"num_layer": 2})


def test_inpaint_mask_channels_must_fit() -> None:
    with pytest.raises(ConfigError, match="vae_scale_factor_t"):
        OpenSoraInpaint.from_config(TRANSFORMER_CONFIG | {"vae_scale_factor_t": 8})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("attn_resolutions", [16]),
        ("encoder_attention", "AttnBlock"),
        ("encoder_spatial_downsample", ["Downsample"]),
        ("encoder_temporal_downsample", ["TimeDownsample2x", "", "", ""]),
        ("decoder_spatial_upsample", ["", "", "", "Upsample"]),
        ("hidden_size", 48),  # not a multiple of the norms' groups
        ("double_z", False),
        ("z_chanels", 4),
        ("decoder_mid_resnet", "ResnetBlock"),
    ],
)
def test_autoencoder_config_is_refused_by_name(key: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=key):
        CausalVAEModel.from_config(VAE_CONFIG | {key: value})


def test_autoencoder_has_no_defaults_for_its_blocks() -> None:
    config = {key: value for key, value in VAE_CONFIG.items() if key != "decoder_mid_resnet"}
    with pytest.raises(ConfigError, match="lacks `decoder_mid_resnet`"):
        CausalVAEModel.from_config(config)


def test_scales_follow_the_sample_size_where_null() -> None:
    nulls = dict.fromkeys(("interpolation_scale_t", "interpolation_scale_h", "interpolation_scale_w"))
    with torch.device("meta"):
        odd = OpenSoraT2V.from_config(TRANSFORMER_CONFIG | nulls | {"sample_size": [60, 80], "sample_size_t": 17})
        even = OpenSoraT2V.from_config(TRANSFORMER_CONFIG | nulls | {"sample_size": [90, 160], "sample_size_t": 24})
    assert odd.config.interpolation_scales == (2.0, 2.0, 2.0)
    assert even.config.interpolation_scales == (1.5, 3.0, 4.0)


def test_config_round_trip_keeps_every_upstream_key() -> None:
    with torch.device("meta"):
        model = OpenSoraInpaint.from_config(TRANSFORMER_CONFIG)
        again = OpenSoraInpaint.from_config(model.config_json())
    assert again.config == model.config
    assert {"_class_name", "dropout", "norm_type", "attention_mode", "vae_scale_factor_t"} <= model.config_json().keys()
