"""Configs of the published models, for plans while the weights are not on this machine. It needs no torch."""

from __future__ import annotations

from typing import Any

SVD = "stabilityai/stable-video-diffusion-img2vid"
SVD_XT = "stabilityai/stable-video-diffusion-img2vid-xt"
SVD_XT_1_1 = "stabilityai/stable-video-diffusion-img2vid-xt-1-1"
NUM_FRAMES = {SVD: 14, SVD_XT: 25, SVD_XT_1_1: 25}
OPENCLIP_H = "stabilityai/stable-diffusion-2-1"  # its text encoder is the text tower of SVD's image encoder

_COUNTS = {"unet": 1_524_623_082, "vae": 97_742_847, "image_encoder": 632_076_800}
# Numbers of parameters, for the memory table while the weights are not on this machine.
NUM_PARAMETERS = {**dict.fromkeys(NUM_FRAMES, _COUNTS), OPENCLIP_H: {"text_encoder": 340_387_840}}

# Each config has the values of the published file, also those that equal the defaults of diffusers.
UNET: dict[str, Any] = {
    "sample_size": 96,
    "in_channels": 8,
    "out_channels": 4,
    "down_block_types": ["CrossAttnDownBlockSpatioTemporal"] * 3 + ["DownBlockSpatioTemporal"],
    "up_block_types": ["UpBlockSpatioTemporal"] + ["CrossAttnUpBlockSpatioTemporal"] * 3,
    "block_out_channels": [320, 640, 1280, 1280],
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 768,
    "layers_per_block": 2,
    "cross_attention_dim": 1024,
    "transformer_layers_per_block": 1,
    "num_attention_heads": [5, 10, 20, 20],
}
VAE: dict[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "block_out_channels": [128, 256, 512, 512],
    "layers_per_block": 2,
    "latent_channels": 4,
    "sample_size": 768,
    "scaling_factor": 0.18215,
    "force_upcast": True,
}
IMAGE_ENCODER: dict[str, Any] = {
    "hidden_act": "gelu",
    "hidden_size": 1280,
    "image_size": 224,
    "intermediate_size": 5120,
    "num_attention_heads": 16,
    "num_hidden_layers": 32,
    "patch_size": 14,
    "projection_dim": 1024,
}
SCHEDULER: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "interpolation_type": "linear",
    "use_karras_sigmas": True,
    "sigma_min": 0.002,
    "sigma_max": 700.0,
    "timestep_spacing": "leading",
    "timestep_type": "continuous",
    "steps_offset": 1,
}
