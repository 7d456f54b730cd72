"""Configurations of the published models, for plans on a machine that does not have them."""

from __future__ import annotations

from typing import Any

# config.json of LanguageBind/Open-Sora-Plan-v1.2.0/vae
VAE: dict[str, Any] = {
    "hidden_size": 128,
    "hidden_size_mult": [1, 2, 4, 4],
    "z_channels": 4,
    "embed_dim": 4,
    "num_res_blocks": 2,
    "q_conv": "CausalConv3d",
    "encoder_conv_in": "Conv2d",
    "encoder_conv_out": "CausalConv3d",
    "encoder_attention": "AttnBlock3DFix",
    "encoder_resnet_blocks": ["ResnetBlock2D", "ResnetBlock2D", "ResnetBlock3D", "ResnetBlock3D"],
    "encoder_spatial_downsample": ["Downsample", "Spatial2xTime2x3DDownsample", "Spatial2xTime2x3DDownsample", ""],
    "encoder_temporal_downsample": ["", "", "", ""],
    "encoder_mid_resnet": "ResnetBlock3D",
    "decoder_conv_in": "CausalConv3d",
    "decoder_conv_out": "CausalConv3d",
    "decoder_attention": "AttnBlock3DFix",
    "decoder_resnet_blocks": ["ResnetBlock3D", "ResnetBlock3D", "ResnetBlock3D", "ResnetBlock3D"],
    "decoder_spatial_upsample": ["", "SpatialUpsample2x", "Spatial2xTime2x3DUpsample", "Spatial2xTime2x3DUpsample"],
    "decoder_temporal_upsample": ["", "", "", ""],
    "decoder_mid_resnet": "ResnetBlock3D",
}
# config.json of the transformers; the classes' defaults are the published values
TRANSFORMER: dict[str, Any] = {}
